"""Runs that cannot be: one line each, and nothing lost."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sampath_wsi.errors import ConfigError, DataError, ModelError
from sampath_wsi.training import loop
from sampath_wsi.training.loss import LossTerms, sam_path_loss
from sampath_wsi.training.run import RunOptions
from tests.training.loop.runs import last_weights, run_training, write_halves, write_recipe


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_halves(tmp_path_factory.mktemp("prepared") / "data")


def test_runs_that_cannot_begin_leave_nothing(data: Path, tmp_path: Path) -> None:
    recipe, run = write_recipe(tmp_path), tmp_path / "run"
    for overrides, reason in (
        (["mpp=1.0"], r"has 0\.5 um/px, the recipe tiny wants 1\.0"),
        (["batch_size=8"], "less than one batch of 8"),
        (["val_split=test"], r"no sample of the split 'test'"),
    ):
        with pytest.raises(DataError, match=reason):
            run_training(recipe, data, run, overrides=overrides)
    assert not run.exists()


def test_without_the_extra_a_training_says_how_to_install_it(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ConfigError, match=r"tensorboard, which is not installed\. pip install 'sampath-wsi\[train\]'"):
        run_training(write_recipe(tmp_path), data, tmp_path / "run")


def test_a_loss_that_is_not_finite_keeps_the_last_checkpoint(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = 4  # the training and validation batches of the first epoch: 2 and 1, and one more

    def spoilt(logits: torch.Tensor, *arguments: Any, **options: Any) -> LossTerms:
        nonlocal left
        left -= 1
        terms = sam_path_loss(logits, *arguments, **options)
        return terms if left >= 0 else terms._replace(total=logits.sum() * torch.nan)

    monkeypatch.setattr(loop, "sam_path_loss", spoilt)
    run = tmp_path / "run"
    with pytest.raises(ModelError, match="the loss is nan in epoch 2, batch 2") as raised:
        run_training(write_recipe(tmp_path), data, run)
    assert "\n" not in str(raised.value)
    assert all(torch.isfinite(tensor).all() for tensor in last_weights(run).values())
    monkeypatch.undo()
    run_training(write_recipe(tmp_path), data, run, resume=True)


def test_an_image_without_any_label_is_no_trouble(tmp_path: Path) -> None:
    data = write_halves(tmp_path / "data", unlabelled=1)
    recipe = write_recipe(tmp_path, epochs=1, batch_size=1, loss={"cross_entropy": 1.0})
    run_training(recipe, data, tmp_path / "run")
    assert all(torch.isfinite(tensor).all() for tensor in last_weights(tmp_path / "run").values())


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("sample", ["s1", "s4"])
def test_a_tile_that_cannot_be_read_is_named_in_one_line(workers: int, sample: str, tmp_path: Path) -> None:
    data = write_halves(tmp_path / "data")
    Image.fromarray(np.full((64, 64), 9, np.uint8)).save(data / "labels" / f"{sample}.png")
    with pytest.raises(DataError, match=rf"labels/{sample}\.png: label 9 is unknown") as raised:
        run_training(
            write_recipe(tmp_path), data, tmp_path / "run", options=RunOptions("cpu", threads=1, workers=workers)
        )
    assert "Traceback" not in str(raised.value)
    assert len(str(raised.value)) < 250
