"""A run that is killed and resumed ends as one that was not."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from sampath_wsi.cli.dry_run import say_training
from sampath_wsi.errors import ConfigError, ModelError
from sampath_wsi.training.checkpoints import SafeCheckpointIO
from sampath_wsi.training.dataset import EpochSampler
from sampath_wsi.training.loop import train
from sampath_wsi.training.plan import plan_training
from sampath_wsi.training.sampling import RankSampler
from sampath_wsi.training.task import SegmentationTask
from tests.training.loop.runs import CPU, EVERY_STEP, assert_same_run, write_halves, write_recipe

# Four optimiser steps of two batches an epoch.
LONG: dict[str, Any] = {"tiles_per_epoch": 17, "accumulate": 2, "precision": "fp32"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_halves(tmp_path_factory.mktemp("prepared") / "data")


def test_a_dry_run_says_what_a_training_would_do_and_where_it_goes_on(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, out = write_recipe(tmp_path, pretrained={"sam": "sam_vit_b"}, epochs=1), tmp_path / "run"
    plan = plan_training(recipe, data, out, options=CPU)
    assert (plan.batches, plan.val_tiles, plan.classes, plan.checkpoint) == (2, 2, ("Bright", "Dark"), None)
    say_training(out, plan)
    first, state = capsys.readouterr().out.splitlines()
    assert "recipe tiny, 1 epochs of 2 batches of 2 tiles of 64 px, 2 tiles to validate on, on cpu" in first
    assert state.startswith(f"{out}: begins with sam_vit_b (")
    assert not out.exists()
    without = ("pretrained=null",)
    train(recipe, data, out, overrides=without, options=CPU)
    with pytest.raises(ConfigError, match="already holds a run"):
        plan_training(recipe, data, out, overrides=without, options=CPU)
    going_on = plan_training(recipe, data, out, overrides=without, resume=True, options=CPU)
    assert going_on.checkpoint == out / "checkpoints" / "last.ckpt"
    assert going_on.weights == ()
    with pytest.raises(ModelError, match="no such encoder weights"):
        plan_training(recipe, data, out, overrides=["pretrained.sam=nope"], options=CPU)


def test_a_run_killed_at_random_steps_ends_with_the_same_weights(data: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, **LONG)
    train(recipe, data, tmp_path / "whole", options=CPU)
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("killed_runs.py"), recipe, data, tmp_path / "killed", "1"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 3
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
    assert {p.name for p in (tmp_path / "killed" / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}


def test_ctrl_c_ends_a_training_like_any_other_command(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> torch.Tensor:
        raise KeyboardInterrupt

    monkeypatch.setattr(SegmentationTask, "training_step", interrupted)
    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(KeyboardInterrupt):
            train(write_recipe(tmp_path, **LONG), data, tmp_path / "run", options=CPU)
    finally:
        signal.signal(signal.SIGINT, before)  # Lightning leaves it ignored


@pytest.mark.parametrize(("epoch", "batch", "workers"), [(1, 0, 0), (1, 5, 1), (2, 7, 0)])
def test_a_run_resumes_within_an_epoch(
    epoch: int, batch: int, workers: int, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe(tmp_path, **LONG)
    train(recipe, data, tmp_path / "whole", options=CPU)
    step = SegmentationTask.training_step

    def dies(self: SegmentationTask, given: Any, batch_index: int) -> torch.Tensor:
        if (self.current_epoch, batch_index) == (epoch, batch):
            raise MemoryError("killed")
        return step(self, given, batch_index)

    monkeypatch.setattr(SegmentationTask, "training_step", dies)
    options = CPU if batch == 0 else EVERY_STEP
    with pytest.raises(MemoryError):
        train(recipe, data, tmp_path / "killed", options=options)
    monkeypatch.undo()
    with pytest.raises(ConfigError, match="already holds a run"):
        train(recipe, data, tmp_path / "killed", options=options)
    seen: list[tuple[int, int]] = []
    train(
        recipe,
        data,
        tmp_path / "killed",
        options=type(options)("cpu", threads=1, workers=workers),
        resume=True,
        progress=lambda done, total, _: seen.append((done, total)),
    )
    # No more than the batches of the step that was cut off are done again.
    left = 24 - 8 * epoch - batch // 2 * 2
    assert seen[0] == (1, left)
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


def test_a_sampler_begins_anywhere_and_its_shares_make_the_whole() -> None:
    keys = EpochSampler(7, seed=3, length=18)
    keys.set_epoch(2)
    whole = list(keys)[:16]
    shares = []
    for rank in (0, 1):
        sampler = RankSampler(EpochSampler(7, seed=3, length=18), 4, rank, 2)
        assert len(sampler) == 8
        sampler.begin_at(2, 3)
        assert list(sampler) == whole[12 + 2 * rank : 14 + 2 * rank]
        sampler.set_epoch(2)
        assert len(list(sampler)) == 2
        sampler.set_epoch(3)
        assert len(list(sampler)) == 8
        sampler.set_epoch(2)
        shares.append(list(sampler))
    joined = [key for start in range(0, 8, 2) for share in shares for key in share[start : start + 2]]
    assert joined == whole


def test_what_cannot_be_resumed_is_said_in_one_line(data: Path, tmp_path: Path) -> None:
    recipe, run = write_recipe(tmp_path, epochs=1), tmp_path / "run"
    train(recipe, data, run, options=CPU)
    with pytest.raises(ConfigError, match=r"another recipe or other data \(recipe.epochs\)"):
        train(recipe, data, run, overrides=("epochs=2",), options=CPU, resume=True)
    splits = tmp_path / "splits.csv"
    splits.write_text("sample,split\ns0,train\ns1,train\ns5,val\n")
    with pytest.raises(ConfigError, match=r"\(data\.samples\)"):
        train(recipe, data, run, splits=splits, options=CPU, resume=True)

    other = tmp_path / "other"
    train(recipe, data, other, overrides=("architecture.decoder_dim=16",), options=CPU)
    last = run / "checkpoints" / "last.ckpt"
    kept = last.read_bytes()
    last.write_bytes((other / "checkpoints" / "last.ckpt").read_bytes())
    with pytest.raises(ModelError, match=r"tiny: the checkpoint is of another architecture: .* misshapen"):
        train(recipe, data, run, options=CPU, resume=True)
    last.write_bytes(kept[: len(kept) // 2])
    with pytest.raises(ModelError, match=r"last\.ckpt: the checkpoint is damaged\. Delete it"):
        train(recipe, data, run, options=CPU, resume=True)
    torch.save({"state_dict": {}}, last)
    with pytest.raises(ModelError, match="not a checkpoint that a training run can go on from"):
        train(recipe, data, run, options=CPU, resume=True)


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", small], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a small file system can only be mounted by root")
    try:
        path = small / "checkpoints" / "last.ckpt"
        SafeCheckpointIO().save_checkpoint({"weights": torch.ones(200_000)}, path)
        before = path.read_bytes()
        with pytest.raises(OSError, match="No space left on device") as raised:
            SafeCheckpointIO().save_checkpoint({"weights": torch.ones(600_000)}, path)
        assert raised.value.errno == errno.ENOSPC
        assert path.read_bytes() == before
        assert [p.name for p in path.parent.iterdir()] == ["last.ckpt"]
    finally:
        subprocess.run(["umount", small], check=True)
