"""Prepared training data from synthetic slides."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from sampath_wsi.errors import ConfigError
from sampath_wsi.progress import Progress, stepper
from sampath_wsi.synthetic import CLASSES, TRUTH_DOWNSAMPLE, Painter, Scene
from sampath_wsi.synthetic.noise import derive_seed
from sampath_wsi.training.data.prepared import DatasetInfo
from sampath_wsi.training.data.prepared_writer import PreparedWriter

_SCANNED_MPP = 0.25
_JPEG_QUALITY = 85
_SIZES_PX = ((8000, 6000), (6000, 6000), (10000, 7000), (6000, 9000))
_LEAST_TISSUE = 0.25
_DRAWS_A_TILE = 40


@dataclass(frozen=True)
class _Place:
    x_level0_px: int
    y_level0_px: int


def prepare_synthetic(
    out: str | Path,
    *,
    train_slides: int = 48,
    val_slides: int = 8,
    tiles_per_slide: int = 10,
    tile_px: int = 512,
    mpp: float = 0.5,
    seed: int = 0,
    progress: Progress | None = None,
) -> Path:
    """Make tiles of synthetic slides for training: each slide is scanned at 0.25 um/px and read as real ones are.

    The slides' seeds are derived from ``seed`` in a way that no small number (such as a demo slide's seed) hits.
    Every other tile is centred on a class in turn, so that rare classes are seen as often as common ones.

    Parameters
    ----------
    out
        Folder to write, in the layout of :mod:`sampath_wsi.training.data.prepared`; group = slide.
    train_slides, val_slides
        Number of slides of the splits ``train`` and ``val``; no slide is in both.
    tiles_per_slide
        Tiles cut from each slide.
    tile_px, mpp
        Size and resolution of the tiles.
    seed
        Master seed.

    Raises
    ------
    ConfigError
        If ``mpp`` is not a whole multiple of 0.25, or a number is not positive.
    """
    factor = round(mpp / _SCANNED_MPP)
    if factor < 1 or abs(factor * _SCANNED_MPP - mpp) > 1e-9:
        raise ConfigError(f"synthetic tiles at {mpp} um/px cannot be made", "Choose a multiple of 0.25.")
    if min(train_slides, val_slides, tiles_per_slide, tile_px) < 1:
        raise ConfigError("slides, tiles and tile size of synthetic data must be positive", "Choose at least 1 each.")
    info = DatasetInfo(
        name="synthetic",
        classes=CLASSES,
        mpp=mpp,
        description=f"tiles of {train_slides + val_slides} synthetic H&E slides, master seed {seed}",
    )
    step = stepper(progress, train_slides + val_slides, "slides")
    with PreparedWriter(out, info) as writer:
        for number in range(train_slides + val_slides):
            split = "train" if number < train_slides else "val"
            slide = f"slide{number:03d}"
            # Offset far from the small numbers that people choose for a slide's seed.
            scene_seed = 2**32 + derive_seed(seed, "training slide", number) % 2**31
            width_px, height_px = _SIZES_PX[number % len(_SIZES_PX)]
            scene = Scene(width_px, height_px, _SCANNED_MPP, scene_seed)
            painter = Painter(scene)
            for k, place in enumerate(_choose_places(scene, tiles_per_slide, tile_px * factor)):
                image, label = _cut(painter, place, tile_px, factor)
                writer.add(f"{slide}_{k:03d}", image, label, group=slide, split=split)
            step()
    return Path(out)


def _choose_places(scene: Scene, count: int, side_level0_px: int) -> list[_Place]:
    """Corners of windows that hold enough tissue, on the lattice of the class map."""
    rng = np.random.default_rng(derive_seed(scene.seed, "places"))
    labels = scene.class_map(0, 0, *scene.map_size_px)
    side = side_level0_px // TRUTH_DOWNSAMPLE
    area = np.pad((labels > 0).cumsum(0, dtype=np.int64).cumsum(1), ((1, 0), (1, 0)))
    places: list[_Place] = []
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
        places.append(_Place(x * TRUTH_DOWNSAMPLE, y * TRUTH_DOWNSAMPLE))
    return places


def _cut(painter: Painter, place: _Place, tile_px: int, factor: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image and label map of a tile: painted at full resolution, through JPEG, averaged; labels of pixel centres."""
    side_level0_px = tile_px * factor
    scanned = painter.paint(place.x_level0_px, place.y_level0_px, side_level0_px, side_level0_px)
    scanned = imagecodecs.jpeg8_decode(imagecodecs.jpeg8_encode(scanned, level=_JPEG_QUALITY))
    blocks = scanned.reshape(tile_px, factor, tile_px, factor, 3)
    image = np.rint(blocks.mean(axis=(1, 3), dtype=np.float32)).astype(np.uint8)
    centres = ((np.arange(tile_px) + 0.5) * factor / TRUTH_DOWNSAMPLE).astype(np.int64)
    side_map_px = -(-side_level0_px // TRUTH_DOWNSAMPLE)
    corner = (place.x_level0_px // TRUTH_DOWNSAMPLE, place.y_level0_px // TRUTH_DOWNSAMPLE)
    labels = painter.scene.class_map(*corner, side_map_px, side_map_px)
    return image, labels[np.ix_(centres, centres)]
