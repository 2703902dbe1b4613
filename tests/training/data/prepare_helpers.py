"""Small stand-ins for data sets in the layouts of their archives."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

BARCODES = ("TCGA-A1-A0SK-DX1", "TCGA-A2-A04P-DX1", "TCGA-E2-A14N-DX1", "TCGA-S3-AA10-DX1")


def save(array: np.ndarray, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def pair(width: int, height: int, codes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A random image and a mask of blocks of codes 0 .. codes - 1."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    blocks = rng.integers(0, codes, (height // 8 + 1, width // 8 + 1), np.uint8)
    return image, blocks.repeat(8, 0).repeat(8, 1)[:height, :width]


def make_bcss(folder: Path, size: tuple[int, int] = (100, 70), mpp: str = "0.2500") -> Path:
    for k, barcode in enumerate(BARCODES):
        image, mask = pair(*size, 22, k)
        name = f"{barcode}_xmin{k}000_ymin500_MPP-{mpp}.png"
        save(image, folder / "images" / name)
        save(mask, folder / "masks" / name)
    return folder


def make_crag(folder: Path, test: str = "valid") -> Path:
    for split, count in (("train", 2), (test, 1)):
        for k in range(count):
            image, mask = pair(60 + 8 * k, 50, 4, k)
            save(image, folder / split / "Images" / f"{split}_{k}.png")
            save(mask, folder / split / "Annotation" / f"{split}_{k}.png")
    return folder


def make_glas_archive(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["name, patient ID, grade (GlaS), grade (Sirinukunwattana et al. 2015)"]
    for k, name in enumerate(("train_1", "testA_1", "testB_1")):
        image, mask = pair(48, 40, 3, k)
        save(image, folder / f"{name}.bmp")
        save(mask, folder / f"{name}_anno.bmp")
        lines.append(f"{name}, {k + 3}, benign, healthy")
    (folder / "Grade.csv").write_text("\n".join(lines) + "\n")
    return folder


def glas_rows(glas: Path) -> dict[str, dict[str, str]]:
    with (glas / "samples.csv").open(newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def some_glas(glas: Path, folder: Path, names: tuple[str, ...]) -> Path:
    """A few images of GlaS in the layout of the whole."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
        for name in names:
            shutil.copy(glas / kind / f"{name}.png", folder / kind)
    rows = glas_rows(glas)
    lines = ["name,split,patient", *(f"{name},{rows[name]['split']},{rows[name]['patient']}" for name in names)]
    (folder / "samples.csv").write_text("\n".join(lines) + "\n")
    return folder


def glas_as_crag(glas: Path, folder: Path, names: tuple[str, ...]) -> Path:
    """A few images of GlaS in the layout of CRAG's archive."""
    for name in names:
        split = "train" if name.startswith("train") else "valid"
        for kind, here in (("images", "Images"), ("masks", "Annotation")):
            (folder / split / here).mkdir(parents=True, exist_ok=True)
            shutil.copy(glas / kind / f"{name}.png", folder / split / here)
    return folder
