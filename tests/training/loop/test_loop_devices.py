"""Training in several processes, as on several GPUs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sampath_wsi.errors import ConfigError
from sampath_wsi.training.loop import train
from sampath_wsi.training.trainer import RunOptions
from tests.training.loop.runs import CPU, last_weights, rows, write_halves, write_recipe


def _train_on_two(recipe: Path, data: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = Path(sys.executable).with_name("sampath-wsi")
    arguments = ["train", recipe, "--data", data, "--out", out, "--device", "cpu", "--devices", "2", "--threads", "1"]
    environment = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "WORLD_SIZE")}
    return subprocess.run(
        [command, *arguments],
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=3600,
        check=False,
    )


def test_two_processes_give_what_one_gives(tmp_path: Path) -> None:
    # Labelled pixels differ from tile to tile, so a cross-entropy that each process averages by itself would differ.
    data = write_halves(tmp_path / "data")
    recipe = write_recipe(
        tmp_path, batch_size=4, tiles_per_epoch=17, accumulate=2, loss={"cross_entropy": 1.0}, optimiser={}
    )
    train(recipe, data, tmp_path / "one", options=CPU)
    done = _train_on_two(recipe, data, tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("epoch 3 of 3") == 1
    assert "Traceback" not in done.stderr
    one, two = last_weights(tmp_path / "one"), last_weights(tmp_path / "two")
    for key in one:
        torch.testing.assert_close(one[key], two[key], rtol=0, atol=1e-5, msg=lambda text, key=key: f"{key}: {text}")
    tables = rows(tmp_path / "one", "seconds"), rows(tmp_path / "two", "seconds")
    for first, second in zip(*tables, strict=True):
        assert [float(v) for v in second.values()] == pytest.approx([float(v) for v in first.values()], abs=2e-3)


def test_a_bad_tile_stops_all_processes_with_one_line(tmp_path: Path) -> None:
    data = write_halves(tmp_path / "data")
    Image.fromarray(np.full((64, 64), 7, np.uint8)).save(data / "labels" / "s2.png")
    done = _train_on_two(write_recipe(tmp_path, batch_size=4), data, tmp_path / "two")
    assert done.returncode == 2, done.stderr
    errors = [line for line in done.stderr.splitlines() if "error" in line]
    assert len(errors) == 1, done.stderr
    assert "labels/s2.png: label 7 is unknown" in errors[0]
    assert "Traceback" not in done.stderr


def test_devices_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    data, recipe = write_halves(tmp_path / "data"), write_recipe(tmp_path)
    for options, reason in (
        (RunOptions("mps", 2), "cannot be used 2 times"),
        (RunOptions("cuda", 999), "999 devices were asked for"),
        (RunOptions("cpu", 3), "a batch of 2 cannot be divided among 3 devices"),
    ):
        with pytest.raises(ConfigError, match=reason):
            train(recipe, data, tmp_path / "run", options=options)
    with pytest.raises(ConfigError, match="fp16, which a CPU cannot train in"):
        train(recipe, data, tmp_path / "run", overrides=("precision=fp16",), options=CPU)
    assert not (tmp_path / "run").exists()
