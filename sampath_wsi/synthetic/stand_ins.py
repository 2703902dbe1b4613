"""Synthetic stand-ins for public data sets and encoder checkpoints, so that experiments run end to end without them.

Data are laid out on disk exactly as their users have them; checkpoints have the format of the public files. No score on
them means anything, though the glands of :mod:`sampath_wsi.synthetic.glands` may serve to begin a training with.
"""

from __future__ import annotations

import argparse
import csv
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sampath_wsi.errors import ConfigError
from sampath_wsi.files import written_aside
from sampath_wsi.model.card import PathologyEncoderSpec, SamEncoderSpec
from sampath_wsi.progress import Progress
from sampath_wsi.synthetic.glands import GLAND_MPP, GlandImage, GlandPainter
from sampath_wsi.synthetic.noise import derive_seed
from sampath_wsi.synthetic.scene import IMMUNE, NECROSIS, OTHER, STROMA, TRUTH_DOWNSAMPLE, TUMOR, Scene
from sampath_wsi.synthetic.slide import Painter

# One image in so many is for testing.
_TEST_SHARE = 4
_BCSS_CODES = np.zeros(256, np.uint8)
_BCSS_CODES[[TUMOR, STROMA, IMMUNE, NECROSIS, OTHER]] = (1, 2, 3, 4, 6)
_TEST_SITES = ("OL", "LL", "E2", "EW", "GM", "S3")
_TRAIN_SITES = ("A1", "A2", "A7", "AN", "AR", "BH", "C8", "D8")
_MPP = {"bcss": 0.30, "crag": 0.50, "glas": GLAND_MPP}
_SIZE_PX = {"bcss": (1400, 1400), "crag": (1512, 1516), "glas": (775, 522)}

TINY_SAM = SamEncoderSpec(embed_dim=32, depth=2, heads=2, global_blocks=(1,), window=4)
TINY_SAM_IMAGE_PX = 128
TINY_HIPT = PathologyEncoderSpec(name="vit_tiny_patch16_224", kwargs={"embed_dim": 24, "depth": 1, "num_heads": 2})
_PUBLIC_HIPT_GRID = 14


def make_raw(
    name: str,
    out: str | Path,
    *,
    images: int = 12,
    size_px: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Path:
    """Write a stand-in of BCSS, CRAG or GlaS.

    Parameters
    ----------
    name
        ``bcss``: ``images/`` and ``masks/`` as its downloader leaves them (masks of codes, names that say 0.25 um/px
        although it is 0.30). ``crag``: ``train/Images``, ``train/Annotation`` and the same in ``valid/``. ``glas``:
        ``images/``, ``masks/`` and ``samples.csv``; like the real one, its official splits share patients.
    out
        A folder that is not there yet, or is empty.
    images
        How many in all; every fourth is for testing.
    size_px
        Side of the square images; by default about as large as the real ones.
    seed
        Everything random is drawn from it.

    Raises
    ------
    ConfigError
        If there is no such data set, ``out`` holds something, or the numbers are too small.
    """
    if name not in _WRITERS:
        raise ConfigError(f"there is no stand-in for {name!r}", f"Choose one of {', '.join(_WRITERS)}.")
    if images < _TEST_SHARE or (size_px is not None and size_px < 64):
        raise ConfigError(f"{images} images of {size_px or 'the usual'} px are too few or too small", "4 of 64 px do.")
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is there already", "Name another folder, or delete this one.")
    aside = out.with_name(f".partial.{out.name}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    size = (size_px, size_px) if size_px else _SIZE_PX[name]
    for done, _ in enumerate(_WRITERS[name](aside, images, size, seed), 1):
        if progress is not None:
            progress(done, images, "images")
    aside.replace(out)
    return out


def _bcss(out: Path, images: int, size: tuple[int, int], seed: int) -> Iterator[None]:
    rng = np.random.default_rng(derive_seed(seed, "bcss"))
    for number in range(images):
        sites = _TEST_SITES if _is_test(number) else _TRAIN_SITES
        x, y = rng.integers(1000, 90000, 2).tolist()
        name = f"TCGA-{sites[number % len(sites)]}-S{number:03d}-DX1_xmin{x}_ymin{y}_MPP-0.2500.png"
        # The smallest scene has 256 px; of it only the middle is kept where less is wanted.
        side = max(256, *size)
        scene = Scene(side, side, _MPP["bcss"], derive_seed(seed, "bcss", number))
        width, height = size
        left, top = ((side - length) // 2 // TRUTH_DOWNSAMPLE for length in size)
        labels = scene.class_map(left, top, -(-width // TRUTH_DOWNSAMPLE), -(-height // TRUTH_DOWNSAMPLE))
        codes = _BCSS_CODES[labels].repeat(TRUTH_DOWNSAMPLE, 0).repeat(TRUTH_DOWNSAMPLE, 1)[:height, :width]
        rgb = Painter(scene).paint(left * TRUTH_DOWNSAMPLE, top * TRUTH_DOWNSAMPLE, width, height)
        _save(out / "images" / name, rgb)
        _save(out / "masks" / name, codes)
        yield


def _crag(out: Path, images: int, size: tuple[int, int], seed: int) -> Iterator[None]:
    for number, picture in _glands("crag", images, size, seed):
        folder, name = ("valid", f"test_{number + 1}.png") if _is_test(number) else ("train", f"train_{number + 1}.png")
        _save(out / folder / "Images" / name, picture.rgb)
        _save(out / folder / "Annotation" / name, picture.instances)
        yield


def _glas(out: Path, images: int, size: tuple[int, int], seed: int) -> Iterator[None]:
    rows = []
    for number, picture in _glands("glas", images, size, seed):
        split = "testA" if _is_test(number) else "train"
        name = f"{split}_{number + 1}"
        _save(out / "images" / f"{name}.png", picture.rgb)
        _save(out / "masks" / f"{name}.png", picture.instances)
        # Two thirds as many patients as images: some have images on both sides.
        patient = number % max(2, 2 * images // 3) + 1
        rows.append((name, split, patient, "malignant" if picture.malignant else "benign"))
        yield
    with (out / "samples.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("name", "split", "patient", "grade"))
        writer.writerows(rows)


_WRITERS = {"bcss": _bcss, "crag": _crag, "glas": _glas}


def _glands(name: str, images: int, size: tuple[int, int], seed: int) -> Iterator[tuple[int, GlandImage]]:
    painter = GlandPainter(_MPP[name], derive_seed(seed, name))
    for number in range(images):
        yield number, painter.paint(number, *size)


def _is_test(number: int) -> bool:
    return number % _TEST_SHARE == _TEST_SHARE - 1


def _save(path: Path, pixels: NDArray[np.integer]) -> None:
    """Save a picture as PNG; masks of up to 255 instances have 8 bits, as the real ones."""
    if pixels.dtype == np.uint16 and pixels.max() < 256:
        pixels = pixels.astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, compress_level=1)


def write_tiny_encoder(kind: str, path: str | Path, seed: int = 0) -> None:
    """Write a checkpoint of random weights in the format of a public one, so small that anything runs in a second.

    Parameters
    ----------
    kind
        ``sam``: the shape is :data:`TINY_SAM`; the flat state, nothing around it. ``hipt``: :data:`TINY_HIPT`; DINO's
        teacher, for 224 px.

    Raises
    ------
    ConfigError
        If there is no such kind.
    """
    import torch  # the data sets need none

    from sampath_wsi.model.pathology_encoder import PathologyEncoder
    from sampath_wsi.model.vanilla_sam import build_vanilla_sam

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == "sam":
            checkpoint = build_vanilla_sam(TINY_SAM, TINY_SAM_IMAGE_PX).state_dict()
        elif kind == "hipt":
            weights = PathologyEncoder(TINY_HIPT, _PUBLIC_HIPT_GRID).model.state_dict()
            teacher = {f"backbone.{key}": tensor for key, tensor in weights.items()}
            checkpoint = {"teacher": teacher, "epoch": 0, "args": argparse.Namespace(patch_size=16)}
        else:
            raise ConfigError(f"there is no tiny encoder {kind!r}", "Choose one of sam, hipt.")
    with written_aside(Path(path)) as aside:
        torch.save(checkpoint, aside)
