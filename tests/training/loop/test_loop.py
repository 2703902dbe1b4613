"""A training run from recipe to bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sampath_wsi.model.bundle import load_bundle
from sampath_wsi.training.loop import TrainingLoop
from sampath_wsi.training.recipe import OptimiserSpec
from tests.training.loop.runs import assert_same_run, last_weights, rows, run_training, write_halves, write_recipe


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_halves(tmp_path_factory.mktemp("prepared") / "data")


def test_a_run_gives_a_bundle_that_loads(data: Path, tmp_path: Path) -> None:
    model = run_training(write_recipe(tmp_path), data, tmp_path / "run")
    bundle = load_bundle(model)
    assert bundle.card.name == "tiny"
    assert [c.name for c in bundle.card.classes] == ["Bright", "Dark"]
    assert bundle.card.limitations == "made by a test"
    assert 0 <= bundle.card.scores["validation/macro/dice"] <= 1
    assert bundle.card.recipe["run"]["machine"] == "1 CPU cores"
    logits, _ = bundle.model(torch.rand(1, 3, 64, 64))
    assert logits.shape == (1, 3, 16, 16)
    table = rows(tmp_path / "run")
    assert [row["epoch"] for row in table] == ["1", "2", "3"]
    assert [row["step"] for row in table] == ["2", "4", "6"]
    assert all(float(row["val/macro/dice"]) >= 0 for row in table)
    assert {p.name for p in (tmp_path / "run").iterdir()} == {
        "metrics.csv",
        "checkpoints",
        "model",
        "run.json",
        "tensorboard",
    }
    assert {p.name for p in (tmp_path / "run" / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}


@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_epoch_that_is_wanted_becomes_the_model(data: Path, tmp_path: Path, keep: str) -> None:
    # Two epochs of these few steps leave the Dice as it is: the first of equals is the best.
    recipe = write_recipe(tmp_path, keep=keep, epochs=2)
    model = load_bundle(run_training(recipe, data, tmp_path / "run")).model.state_dict()
    same = {}
    for name in ("best", "last"):
        path = tmp_path / "run" / "checkpoints" / f"{name}.ckpt"
        state = torch.load(path, weights_only=True)["weights"]
        # Bundles hold half precision.
        same[name] = all(torch.allclose(model[k], state[k], rtol=1e-3, atol=1e-7) for k in model)
    assert same == {"best": keep == "best", "last": keep == "last"}


def test_the_seed_alone_determines_a_run(data: Path, tmp_path: Path) -> None:
    # The encoders' dropout makes the steps themselves random, not only data and first weights.
    dropout = ("architecture.pathology.kwargs.proj_drop_rate=0.2",)
    for name, overrides in (("a", dropout), ("b", dropout), ("c", (*dropout, "seed=1"))):
        run_training(write_recipe(tmp_path), data, tmp_path / name, overrides=overrides)
    assert_same_run(tmp_path / "a", tmp_path / "b")
    assert rows(tmp_path / "a", "seconds") != rows(tmp_path / "c", "seconds")


def test_progress_and_tensorboard_follow_a_run(data: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    seen: list[tuple[int, int]] = []
    run_training(
        write_recipe(tmp_path, epochs=2),
        data,
        tmp_path / "run",
        progress=lambda done, total, _: seen.append((done, total)),
    )
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    table = rows(tmp_path / "run")
    assert [e.step for e in events.Scalars("train/loss")] == [1, 2, 3, 4]
    dice = [e.value for e in events.Scalars("val/macro/dice")]
    assert dice == pytest.approx([float(row["val/macro/dice"]) for row in table], abs=1e-5)


def test_bf16_leaves_neck_and_decoder_in_fp32(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, set[torch.dtype]] = {"mlp": set(), "neck": set(), "logits": set()}

    def noted(self: TrainingLoop, *arguments: Any) -> Any:
        parts = {"mlp": self.model.sam_encoder.blocks[0].mlp.lin1, "neck": self.model.neck}
        hooks = [
            part.register_forward_hook(lambda _, __, result, name=name: seen[name].add(result.dtype))
            for name, part in parts.items()
        ]
        logits, terms = loss(self, *arguments)
        seen["logits"].add(logits.dtype)
        for hook in hooks:
            hook.remove()
        return logits, terms

    loss = TrainingLoop.batch_loss
    monkeypatch.setattr(TrainingLoop, "batch_loss", noted)
    run_training(write_recipe(tmp_path, epochs=1, precision="bf16"), data, tmp_path / "run")
    assert seen == {"mlp": {torch.bfloat16}, "neck": {torch.float32}, "logits": {torch.float32}}
    assert all(tensor.dtype == torch.float32 for tensor in last_weights(tmp_path / "run").values())


def test_start_from_begins_there_and_frozen_encoders_stay(data: Path, tmp_path: Path) -> None:
    first = run_training(write_recipe(tmp_path, epochs=1), data, tmp_path / "first")
    recipe = write_recipe(tmp_path, epochs=1, start_from=str(first), freeze_encoders=True, accumulate=2)
    second = run_training(recipe, data, tmp_path / "second")
    before, after = (load_bundle(path).model.state_dict() for path in (first, second))
    changed = {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"neck", "mask_decoder"}


def test_learning_rate_over_time() -> None:
    paper = OptimiserSpec(learning_rate=1, warmup_epochs=1, milestones=(25, 29))
    factors = [paper.rate(step, 72, 32) for step in range(32 * 72)]
    assert factors[0] == pytest.approx(1 / 73)
    assert factors[72] == factors[25 * 72 - 1] == 1
    assert factors[25 * 72] == pytest.approx(0.1)
    assert factors[29 * 72] == pytest.approx(0.01)
    cosine = OptimiserSpec(learning_rate=1, warmup_epochs=0, schedule="cosine")
    assert cosine.rate(50, 10, 10) == pytest.approx(0.5)
    assert cosine.rate(100, 10, 10) == pytest.approx(0)
