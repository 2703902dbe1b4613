"""Training in several processes, as on several GPUs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sampath_wsi.errors import ConfigError
from sampath_wsi.training.run import RunOptions
from tests.training.loop.runs import last_weights, rows, run_training, write_halves, write_recipe


def _begin_on_two(recipe: Path, data: Path, out: Path) -> subprocess.Popen[str]:
    command = Path(sys.executable).with_name("sampath-wsi")
    arguments = ["train", recipe, "--data", data, "--out", out, "--device", "cpu", "--devices", "2", "--threads", "1"]
    return subprocess.Popen(
        [command, *arguments], env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True
    )


def _train_on_two(recipe: Path, data: Path, out: Path) -> tuple[int, str]:
    """Exit code and what was said."""
    with _begin_on_two(recipe, data, out) as process:
        said = process.communicate()[1]
    return process.returncode, said


def test_two_processes_give_what_one_gives(tmp_path: Path) -> None:
    # Labelled pixels differ from tile to tile, so a cross-entropy that each process averages by itself would differ.
    data = write_halves(tmp_path / "data")
    recipe = write_recipe(
        tmp_path, batch_size=4, tiles_per_epoch=17, accumulate=2, loss={"cross_entropy": 1.0}, optimiser={}
    )
    run_training(recipe, data, tmp_path / "one")
    code, said = _train_on_two(recipe, data, tmp_path / "two")
    assert code == 0, said
    assert said.count("epoch 3 of 3") == 1
    assert "Traceback" not in said
    one, two = last_weights(tmp_path / "one"), last_weights(tmp_path / "two")
    for key in one:
        torch.testing.assert_close(one[key], two[key], rtol=0, atol=1e-5, msg=lambda text, key=key: f"{key}: {text}")
    tables = rows(tmp_path / "one", "seconds"), rows(tmp_path / "two", "seconds")
    for first, second in zip(*tables, strict=True):
        assert [float(v) for v in second.values()] == pytest.approx([float(v) for v in first.values()], abs=2e-3)


def test_a_bad_tile_stops_all_processes_with_one_line(tmp_path: Path) -> None:
    data = write_halves(tmp_path / "data")
    Image.fromarray(np.full((64, 64), 7, np.uint8)).save(data / "labels" / "s2.png")
    code, said = _train_on_two(write_recipe(tmp_path, batch_size=4), data, tmp_path / "two")
    assert code == 2, said
    errors = [line for line in said.splitlines() if "error" in line]
    assert len(errors) == 1, said
    assert "labels/s2.png: label 7 is unknown" in errors[0]
    assert "Traceback" not in said


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux to find the processes of a process")
@pytest.mark.parametrize(
    ("number", "whom", "code", "line"),
    [
        (signal.SIGKILL, "other", 2, "sampath-wsi: error: process 1 of the training was killed by SIGKILL"),
        (signal.SIGTERM, "first", 143, "sampath-wsi: stopped by SIGTERM"),
        (signal.SIGKILL, "first", -signal.SIGKILL, ""),
    ],
)
def test_no_process_outlives_another(number: int, whom: str, code: int, line: str, tmp_path: Path) -> None:
    data, out = write_halves(tmp_path / "data"), tmp_path / "two"
    with _begin_on_two(write_recipe(tmp_path, epochs=100_000), data, out) as process:
        while not (out / "metrics.csv").exists():
            time.sleep(0.05)
        tasks = Path(f"/proc/{process.pid}/task").glob("*/children")
        (other,) = {int(child) for task in tasks for child in task.read_text().split()}
        os.kill(other if whom == "other" else process.pid, number)
        said = process.communicate()[1]
    assert process.returncode == code, said
    assert line in said
    if line:
        assert "Traceback" not in said
    while Path(f"/proc/{other}").exists() and " Z " not in Path(f"/proc/{other}/stat").read_text():
        time.sleep(0.05)


def test_devices_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    data, recipe = write_halves(tmp_path / "data"), write_recipe(tmp_path)
    for options, reason in (
        (RunOptions("mps", 2), "cannot be used 2 times"),
        (RunOptions("cuda", 2), "2 devices were asked for"),
        (RunOptions("cpu", 3), "a batch of 2 cannot be divided among 3 devices"),
    ):
        with pytest.raises(ConfigError, match=reason):
            run_training(recipe, data, tmp_path / "run", options=options)
    with pytest.raises(ConfigError, match="fp16, which a CPU cannot train in"):
        run_training(recipe, data, tmp_path / "run", overrides=("precision=fp16",))
    assert not (tmp_path / "run").exists()
