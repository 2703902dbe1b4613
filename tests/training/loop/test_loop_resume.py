"""A run that is killed and resumed ends as one that was not."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sampath_wsi.cli.dry_run import say_training
from sampath_wsi.errors import ConfigError, ModelError
from sampath_wsi.stages import VERSIONS
from sampath_wsi.training.loop import TrainingLoop
from sampath_wsi.training.run import Run, write_checkpoint
from sampath_wsi.training.tiles import epoch_keys, share_of
from tests.training.loop.runs import CPU, EVERY_STEP, assert_same_run, run_training, write_halves, write_recipe

# Four optimiser steps of two batches an epoch.
LONG: dict[str, Any] = {"tiles_per_epoch": 17, "accumulate": 2, "precision": "fp32"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_halves(tmp_path_factory.mktemp("prepared") / "data")


def test_a_dry_run_says_where_a_training_goes_on(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, out = write_recipe(tmp_path, pretrained={"sam": "sam_vit_b"}, epochs=1), tmp_path / "run"
    run = Run(recipe, data, out, options=CPU)
    assert (run.batches, run.val_tiles, run.classes, run.checkpoint) == (2, 2, ("Bright", "Dark"), None)
    say_training(run)
    first, state = capsys.readouterr().out.splitlines()
    assert "recipe tiny, 1 epochs of 2 batches of 2 tiles of 64 px, 2 tiles to validate on, on cpu" in first
    assert state.startswith(f"{out}: begins with sam_vit_b (")
    assert not out.exists()
    without = ("pretrained=null",)
    run_training(recipe, data, out, overrides=without)
    with pytest.raises(ConfigError, match="already holds a run"):
        Run(recipe, data, out, overrides=without)
    going_on = Run(recipe, data, out, overrides=without, resume=True)
    assert going_on.checkpoint == out / "checkpoints" / "last.ckpt"
    with pytest.raises(ModelError, match="no such encoder weights"):
        say_training(Run(recipe, data, tmp_path / "other", overrides=["pretrained.sam=nope"]))


def test_a_run_killed_at_random_ends_with_the_same_weights(data: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, **LONG)
    run_training(recipe, data, tmp_path / "whole")
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

    monkeypatch.setattr(TrainingLoop, "train_batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_training(write_recipe(tmp_path, **LONG), data, tmp_path / "run")


@pytest.mark.parametrize(("epoch", "batch", "workers"), [(1, 0, 0), (1, 5, 1), (2, 7, 0)])
def test_a_run_resumes_within_an_epoch(
    epoch: int, batch: int, workers: int, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe(tmp_path, **LONG)
    run_training(recipe, data, tmp_path / "whole")
    train_batch = TrainingLoop.train_batch

    def dies(self: TrainingLoop, *arguments: Any) -> None:
        if (self.state.epoch, self.state.batch) == (epoch, batch):
            raise MemoryError("killed")
        train_batch(self, *arguments)

    monkeypatch.setattr(TrainingLoop, "train_batch", dies)
    options = CPU if batch == 0 else EVERY_STEP
    with pytest.raises(MemoryError):
        run_training(recipe, data, tmp_path / "killed", options=options)
    monkeypatch.undo()
    with pytest.raises(ConfigError, match="already holds a run"):
        run_training(recipe, data, tmp_path / "killed", options=options)
    seen: list[tuple[int, int]] = []
    run_training(
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


def test_the_shares_of_processes_make_the_whole_epoch() -> None:
    keys = epoch_keys(7, 3, 2, 18)
    shares = [share_of(keys, 4, rank, 2) for rank in (0, 1)]
    assert [len(share) for share in shares] == [4, 4]
    assert [key for parts in zip(*shares, strict=True) for part in parts for key in part] == keys[:16]


def test_a_run_of_an_older_version_is_begun_anew(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recipe, run, seen = write_recipe(tmp_path, epochs=1), tmp_path / "run", []
    for version, done in ((1, 1), (1, 0), (2, 1)):
        monkeypatch.setitem(VERSIONS, "train", version)
        seen.clear()
        with caplog.at_level("INFO"):
            run_training(recipe, data, run, resume=True, progress=lambda *step: seen.append(step))
        assert bool(seen) == bool(done)
    assert f"{run}: begun anew, since version 1 of the training began it, this program has version 2" in caplog.text


def test_what_cannot_be_resumed_is_said_in_one_line(data: Path, tmp_path: Path) -> None:
    recipe, run = write_recipe(tmp_path, epochs=1), tmp_path / "run"
    run_training(recipe, data, run)
    with pytest.raises(ConfigError, match=r"another recipe or other data \(recipe.epochs\)"):
        run_training(recipe, data, run, overrides=("epochs=2",), resume=True)
    splits = tmp_path / "splits.csv"
    splits.write_text("sample,split\ns0,train\ns1,train\ns5,val\n")
    with pytest.raises(ConfigError, match=r"\(data\.samples\)"):
        run_training(recipe, data, run, splits=splits, resume=True)

    corrected = shutil.copytree(data, tmp_path / "corrected")
    label = next((corrected / "labels").iterdir())
    Image.fromarray(np.zeros_like(np.asarray(Image.open(label)))).save(label)
    with pytest.raises(ConfigError, match=r"\(data\.content_sha256\)\. Name another folder, or delete this one"):
        run_training(recipe, corrected, run, resume=True)

    other = tmp_path / "other"
    run_training(recipe, data, other, overrides=("architecture.decoder_dim=16",))
    last = run / "checkpoints" / "last.ckpt"
    kept = last.read_bytes()
    last.write_bytes((other / "checkpoints" / "last.ckpt").read_bytes())
    with pytest.raises(ModelError, match=r"tiny: the checkpoint is of another architecture: .* misshapen"):
        run_training(recipe, data, run, resume=True)
    last.write_bytes(kept[: len(kept) // 2])
    with pytest.raises(ModelError, match=r"last\.ckpt: the checkpoint is damaged\. Delete it"):
        run_training(recipe, data, run, resume=True)
    torch.save({"state_dict": {}, "pytorch-lightning_version": "2.6.6"}, last)
    with pytest.raises(ModelError, match="written by a version that trained with Lightning"):
        run_training(recipe, data, run, resume=True)
    torch.save({"weights": {}}, last)
    with pytest.raises(ModelError, match="not a checkpoint that a training run can go on from"):
        run_training(recipe, data, run, resume=True)


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
        write_checkpoint(path, {"weights": torch.ones(200_000)})
        before = path.read_bytes()
        with pytest.raises(OSError, match="No space left on device") as raised:
            write_checkpoint(path, {"weights": torch.ones(600_000)})
        assert raised.value.errno == errno.ENOSPC
        assert path.read_bytes() == before
        assert [p.name for p in path.parent.iterdir()] == ["last.ckpt"]
    finally:
        subprocess.run(["umount", small], check=True)
