"""Prepared training data from nothing: tiles of synthetic slides, and pictures of synthetic glands."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from sampath_wsi.options import SyntheticGlandOptions, SyntheticOptions
from sampath_wsi.progress import Progress
from sampath_wsi.synthetic import CLASSES, TRUTH_DOWNSAMPLE, Painter, Scene
from sampath_wsi.synthetic.glands import GLAND_MPP, GlandPainter
from sampath_wsi.synthetic.noise import derive_seed
from sampath_wsi.training.data.prepare.label_map import load_label_map
from sampath_wsi.training.data.prepared import TRAIN, VAL, DatasetInfo
from sampath_wsi.training.data.prepared_writer import LabelledImage, Summary, write_prepared

_SCANNED_MPP = 0.25
_JPEG_QUALITY = 85
_SIZES_PX = ((8000, 6000), (6000, 6000), (10000, 7000), (6000, 9000))
_LEAST_TISSUE = 0.25
_DRAWS_A_TILE = 40


def prepare_synthetic(
    out: str | Path, options: SyntheticOptions | None = None, progress: Progress | None = None
) -> Summary:
    """Make tiles of synthetic slides for training: each slide is scanned at 0.25 um/px and read as real ones are.

    A slide is a group, and in one split. The slides' seeds are derived from ``seed`` in a way that no small number
    (such as a demo slide's seed) hits. Every other tile is centred on a class in turn, so that rare classes are seen as
    often as common ones.
    """
    options = options or SyntheticOptions()
    tile_px, factor = options.tile_px, round(options.mpp / _SCANNED_MPP)
    slides = options.train_slides + options.val_slides
    info = DatasetInfo(
        name="synthetic",
        classes=CLASSES,
        mpp=options.mpp,
        description=f"tiles of {slides} synthetic H&E slides, master seed {options.seed}",
    )

    def cut(number: int) -> Iterator[LabelledImage]:
        # Offset far from the small numbers that people choose for a slide's seed.
        scene_seed = 2**32 + derive_seed(options.seed, "training slide", number) % 2**31
        painter = Painter(Scene(*_SIZES_PX[number % len(_SIZES_PX)], _SCANNED_MPP, scene_seed))
        slide, split = f"slide{number:03d}", TRAIN if number < options.train_slides else VAL
        for k, corner in enumerate(_choose_corners(painter.scene, options.tiles_per_slide, tile_px * factor)):
            yield LabelledImage(f"{slide}_{k:03d}", *_paint_tile(painter, corner, tile_px, factor), slide, split)

    sources = {f"slide{number:03d}": partial(cut, number) for number in range(slides)}
    return write_prepared(out, info, sources, "slides", progress=progress)


def _choose_corners(scene: Scene, count: int, side_level0_px: int) -> Iterator[tuple[int, int]]:
    """Choose corners (x, y), in level-0 pixels, of windows with enough tissue, on the lattice of the class map."""
    rng = np.random.default_rng(derive_seed(scene.seed, "places"))
    labels = scene.class_map(0, 0, *scene.map_size_px)
    side = side_level0_px // TRUTH_DOWNSAMPLE
    area = np.pad((labels > 0).cumsum(0, dtype=np.int64).cumsum(1), ((1, 0), (1, 0)))
    for k in range(count):
        wanted = k // 2 % len(CLASSES) + 1 if k % 2 else 0
        rows, columns = np.nonzero(labels == wanted if wanted and (labels == wanted).any() else labels > 0)
        for _ in range(_DRAWS_A_TILE):
            pick = int(rng.integers(len(rows)))
            x = int(columns[pick] - side // 2 + rng.integers(-side // 4, side // 4 + 1))
            y = int(rows[pick] - side // 2 + rng.integers(-side // 4, side // 4 + 1))
            x, y = (max(0, min(v, n - side)) for v, n in ((x, labels.shape[1]), (y, labels.shape[0])))
            right, bottom = min(x + side, labels.shape[1]), min(y + side, labels.shape[0])
            tissue = area[bottom, right] - area[y, right] - area[bottom, x] + area[y, x]
            if tissue >= _LEAST_TISSUE * side * side:
                break
        yield x * TRUTH_DOWNSAMPLE, y * TRUTH_DOWNSAMPLE


def _paint_tile(
    painter: Painter, corner_level0_px: tuple[int, int], tile_px: int, factor: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return image and labels of a tile: painted in full, through JPEG, averaged; labels of pixel centres."""
    side_level0_px = tile_px * factor
    scanned = painter.paint(*corner_level0_px, side_level0_px, side_level0_px)
    scanned = imagecodecs.jpeg8_decode(imagecodecs.jpeg8_encode(scanned, level=_JPEG_QUALITY))
    blocks = scanned.reshape(tile_px, factor, tile_px, factor, 3)
    image = np.rint(blocks.mean(axis=(1, 3), dtype=np.float32)).astype(np.uint8)
    centres = ((np.arange(tile_px) + 0.5) * factor / TRUTH_DOWNSAMPLE).astype(np.int64)
    side_map_px = -(-side_level0_px // TRUTH_DOWNSAMPLE)
    x_map_px, y_map_px = (n // TRUTH_DOWNSAMPLE for n in corner_level0_px)
    labels = painter.scene.class_map(x_map_px, y_map_px, side_map_px, side_map_px)
    return image, labels[np.ix_(centres, centres)]


def prepare_synthetic_glands(
    out: str | Path, options: SyntheticGlandOptions | None = None, progress: Progress | None = None
) -> Summary:
    """Paint pictures of glands as large as those of GlaS, to begin with where real glands are few.

    Every picture is a group of its own.
    """
    options = options or SyntheticGlandOptions()
    classes = load_label_map("glas").tissue_classes
    info = DatasetInfo(
        name="synthetic glands", classes=classes, mpp=GLAND_MPP, description=f"master seed {options.seed}"
    )
    painter = GlandPainter(seed=options.seed)

    def paint(name: str, number: int) -> Iterator[LabelledImage]:
        picture = painter.paint(number)
        labels = (picture.instances > 0).astype(np.uint8) + 1
        split = VAL if number >= options.images - options.val_images else TRAIN
        yield LabelledImage(name, picture.rgb, labels, name, split, picture.instances)

    sources = {f"synthetic_{number}": partial(paint, f"synthetic_{number}", number) for number in range(options.images)}
    return write_prepared(out, info, sources, "pictures", progress=progress)
