"""A training run from recipe to bundle, interrupted and not."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from sampath_wsi.classes import TissueClass
from sampath_wsi.errors import ConfigError, DataError, ModelError
from sampath_wsi.model.bundle import load_bundle
from sampath_wsi.train.loop import train
from sampath_wsi.train.prepared import DatasetInfo
from sampath_wsi.train.prepared_writer import PreparedWriter
from sampath_wsi.train.recipe import OptimiserSpec, read_recipe
from sampath_wsi.train.task import SegmentationTask, learning_rate_factor

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


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, bright and dark halves."""
    folder = tmp_path_factory.mktemp("prepared") / "data"
    classes = (TissueClass(name="Bright", color=(255, 255, 0)), TissueClass(name="Dark", color=(0, 0, 0)))
    rng = np.random.default_rng(0)
    with PreparedWriter(folder, DatasetInfo(name="halves", classes=classes, mpp=0.5)) as writer:
        for k in range(6):
            label = np.ones((64, 64), np.uint8)
            label[:, int(rng.integers(16, 48)) :] = 2
            label[:4] = 0
            image = np.where(label == 2, 60, 200)[..., None] + rng.integers(-20, 20, (64, 64, 3))
            writer.add(f"s{k}", image.astype(np.uint8), label, f"g{k}", "train" if k < 4 else "val")
    return folder


def _recipe(folder: Path, **changes: Any) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(RECIPE | changes))
    return path


def _rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_run_gives_a_bundle_that_loads(data: Path, tmp_path: Path) -> None:
    model = train(_recipe(tmp_path), data, tmp_path / "run", threads=1, device="cpu")
    bundle = load_bundle(model)
    assert bundle.card.name == "tiny"
    assert [c.name for c in bundle.card.classes] == ["Bright", "Dark"]
    assert bundle.card.limitations == "made by a test"
    assert 0 <= bundle.card.scores["validation/macro/dice"] <= 1
    assert bundle.card.recipe["run"]["machine"] == "1 CPU cores"
    logits, _ = bundle.model(torch.rand(1, 3, 64, 64))
    assert logits.shape == (1, 3, 16, 16)
    rows = _rows(tmp_path / "run")
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert [row["step"] for row in rows] == ["2", "4", "6"]
    assert all(float(row["val/macro/dice"]) >= 0 for row in rows)
    assert {p.name for p in (tmp_path / "run").iterdir()} == {"metrics.csv", "checkpoints", "model", "run.json"}
    assert {p.name for p in (tmp_path / "run" / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}


def test_a_killed_and_resumed_run_ends_with_the_same_weights(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = _recipe(tmp_path, epochs=4)
    train(recipe, data, tmp_path / "whole", threads=1, device="cpu")
    step = SegmentationTask.training_step

    def dies(self: SegmentationTask, batch: Any, batch_index: int) -> torch.Tensor:
        if self.current_epoch == 2 and batch_index == 1:
            raise MemoryError("killed")
        return step(self, batch, batch_index)

    monkeypatch.setattr(SegmentationTask, "training_step", dies)
    with pytest.raises(MemoryError):
        train(recipe, data, tmp_path / "killed", threads=1, device="cpu")
    monkeypatch.undo()
    with pytest.raises(ConfigError, match="already holds a run"):
        train(recipe, data, tmp_path / "killed", threads=1, device="cpu")
    train(recipe, data, tmp_path / "killed", threads=1, device="cpu", resume=True)

    whole, resumed = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "killed")
    )
    assert whole.keys() == resumed.keys()
    for key in whole:
        assert torch.equal(whole[key], resumed[key]), key
    untimed = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in _rows(tmp_path / n)] for n in ("whole", "killed")
    ]
    assert untimed[0] == untimed[1]


def test_frozen_encoders_do_not_change_and_start_from_begins_there(data: Path, tmp_path: Path) -> None:
    first = train(_recipe(tmp_path, epochs=1), data, tmp_path / "first", threads=1, device="cpu")
    recipe = _recipe(tmp_path, epochs=1, start_from=str(first), freeze_encoders=True, accumulate=2)
    second = train(recipe, data, tmp_path / "second", threads=1, device="cpu")
    before, after = (load_bundle(path).model.state_dict() for path in (first, second))
    changed = {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"neck", "mask_decoder"}


def test_bad_runs_are_refused(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"has 0\.5 um/px, the recipe tiny wants 1\.0"):
        train(_recipe(tmp_path, mpp=1.0), data, tmp_path / "run")
    with pytest.raises(DataError, match="less than one batch of 8"):
        train(_recipe(tmp_path, batch_size=8), data, tmp_path / "batch", device="cpu")
    with pytest.raises(ConfigError, match=r"architecture\.decoder_dim: Input should be greater than 0"):
        train(_recipe(tmp_path, architecture={"decoder_dim": 0}), data, tmp_path / "run")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_recipe(tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigError, match="not a multiple of validate_every"):
        read_recipe(_recipe(tmp_path, validate_every=2))
    assert not (tmp_path / "run").exists()

    monkeypatch.setattr("sampath_wsi.train.task.sam_path_loss", _infinite_loss)
    with pytest.raises(ModelError, match="the loss is nan in epoch 0, batch 0"):
        train(_recipe(tmp_path), data, tmp_path / "nan", threads=1, device="cpu")


def _infinite_loss(logits: torch.Tensor, *_: object, **__: object) -> Any:
    from sampath_wsi.train.loss import LossTerms

    return LossTerms(*[logits.sum() * torch.nan] * 5)


def test_a_run_of_another_recipe_is_not_resumed(data: Path, tmp_path: Path) -> None:
    train(_recipe(tmp_path, epochs=1), data, tmp_path / "run", threads=1, device="cpu")
    with pytest.raises(ConfigError, match="has another recipe or other data"):
        train(_recipe(tmp_path, epochs=2), data, tmp_path / "run", threads=1, device="cpu", resume=True)


def test_learning_rate_over_time() -> None:
    paper = OptimiserSpec(warmup_epochs=1, milestones=(25, 29))
    factors = [learning_rate_factor(paper, step, 72, 32) for step in range(32 * 72)]
    assert factors[0] == pytest.approx(1 / 73)
    assert factors[72] == factors[25 * 72 - 1] == 1
    assert factors[25 * 72] == pytest.approx(0.1)
    assert factors[29 * 72] == pytest.approx(0.01)
    cosine = OptimiserSpec(warmup_epochs=0, schedule="cosine")
    assert learning_rate_factor(cosine, 50, 10, 10) == pytest.approx(0.5)
    assert learning_rate_factor(cosine, 100, 10, 10) == pytest.approx(0)


def test_the_demo_recipe_is_valid() -> None:
    recipe = read_recipe(Path(__file__).resolve().parents[2] / "config" / "experiments" / "demo.yaml")
    assert recipe.name == "demo"
    assert "synthetic tissue only" in recipe.limitations
