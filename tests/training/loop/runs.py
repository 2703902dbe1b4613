"""Tiny data and recipes for tests of the training loop, and what they leave."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from sampath_wsi.classes import TissueClass
from sampath_wsi.training.data.prepared import DatasetInfo
from sampath_wsi.training.data.prepared_writer import LabelledImage, write_prepared
from sampath_wsi.training.run import Run, RunOptions
from sampath_wsi.training.train import train

CPU = RunOptions(device="cpu", threads=1)
EVERY_STEP = RunOptions(device="cpu", threads=1, checkpoint_minutes=0)
RECIPE: dict[str, Any] = {
    "name": "tiny",
    "limitations": "made by a test",
    "architecture": {
        "image_size": 64,
        "decoder_dim": 32,
        "sam": {"embed_dim": 16, "depth": 1, "heads": 2, "window": 2, "global_blocks": []},
        "pathology": {"name": "vit_tiny_patch16_224", "kwargs": {"embed_dim": 24, "depth": 1, "num_heads": 2}},
    },
    "mpp": 0.5,
    "tile_px": 64,
    "overlap_px": 8,
    "freeze_encoders": False,
    "epochs": 3,
    "batch_size": 2,
    "optimiser": {"learning_rate": 0.001, "schedule": "cosine", "clip_norm": 1.0},
}


def write_halves(folder: Path, unlabelled: int = -1) -> Path:
    """Four tiles to train on and two to validate on, of two classes: bright and dark halves.

    ``unlabelled`` is the number of a tile without any label.
    """
    classes = (TissueClass(name="Bright", color=(255, 255, 0)), TissueClass(name="Dark", color=(0, 0, 0)))
    rng = np.random.default_rng(0)
    images: list[LabelledImage] = []
    for k in range(6):
        label = np.ones((64, 64), np.uint8)
        label[:, int(rng.integers(16, 48)) :] = 2
        label[: 4 + 8 * k] = 0
        image = np.where(label == 2, 60, 200)[..., None] + rng.integers(-20, 20, (64, 64, 3))
        if k == unlabelled:
            label[:] = 0
        images.append(LabelledImage(f"s{k}", image.astype(np.uint8), label, f"g{k}", "train" if k < 4 else "val"))
    write_prepared(folder, DatasetInfo(name="halves", classes=classes, mpp=0.5), {"all": lambda: images})
    return folder


def write_recipe(folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(RECIPE | changes))
    return path


def run_training(
    recipe: Path, data: Path, out: Path, *, progress: Callable[[int, int, str], None] | None = None, **options: Any
) -> Path:
    """Train on one thread, unless the options say otherwise; see :class:`Run`."""
    return train(Run(recipe, data, out, **{"options": CPU} | options), progress)


def rows(run: Path, *without: str) -> list[dict[str, str]]:
    """The table of a run."""
    with (run / "metrics.csv").open() as file:
        return [{k: v for k, v in row.items() if k not in without} for row in csv.DictReader(file)]


def last_weights(run: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["weights"]
    return state


def assert_same_run(one: Path, other: Path) -> None:
    """Same weights, bit by bit, and same table but for the time that it took."""
    first, second = last_weights(one), last_weights(other)
    assert first.keys() == second.keys()
    for key in first:
        assert torch.equal(first[key], second[key]), key
    assert rows(one, "seconds") == rows(other, "seconds")
