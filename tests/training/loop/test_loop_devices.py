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

from sampath_wsi.errors import ConfigError, DataError
from sampath_wsi.training.run import RunOptions
from tests.training.loop.runs import last_weights, rows, run_training, write_halves, write_recipe


def _begin_on_two(recipe: Path, data: Path, out: Path) -> subprocess.Popen[str]:
    command = Path(sys.executable).with_name("sampath-wsi")
    arguments = ["train", recipe, "--data", data, "--out", out, "--device", "cpu", "--devices", "2", "--threads", "1"]
    return subprocess.Popen(
        [command, *arguments], env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True
    )


def test_two_processes_give_what_one_gives(tmp_path: Path) -> None:
    # Labelled pixels differ from tile to tile, so a cross-entropy that each process averages by itself would differ.
    data = write_halves(tmp_path / "data")
    recipe = write_recipe(
        tmp_path, batch_size=4, tiles_per_epoch=17, accumulate=2, loss={"cross_entropy": 1.0}, optimiser={}
    )
    run_training(recipe, data, tmp_path / "one")
    with _begin_on_two(recipe, data, tmp_path / "two") as process:
        said = process.communicate()[1]
    assert process.returncode == 0, said
    assert said.count("epoch 3 of 3") == 1
    assert "Traceback" not in said
    one, two = last_weights(tmp_path / "one"), last_weights(tmp_path / "two")
    for key in one:
        torch.testing.assert_close(one[key], two[key], rtol=0, atol=1e-5, msg=lambda text, key=key: f"{key}: {text}")
    tables = rows(tmp_path / "one", "seconds"), rows(tmp_path / "two", "seconds")
    for first, second in zip(*tables, strict=True):
        assert [float(v) for v in second.values()] == pytest.approx([float(v) for v in first.values()], abs=2e-3)


TWO = RunOptions("cpu", devices=2, threads=1)
needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")


def _process_beside(process: int) -> int:
    children = [task.read_text().split() for task in Path(f"/proc/{process}/task").glob("*/children")]
    (found,) = {
        int(child) for each in children for child in each if "_take_part" in Path(f"/proc/{child}/cmdline").read_text()
    }
    return found


def test_a_bad_tile_stops_all_processes_with_one_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = write_halves(tmp_path / "data")
    Image.fromarray(np.full((64, 64), 7, np.uint8)).save(data / "labels" / "s2.png")
    with pytest.raises(DataError, match=r"labels/s2\.png: label 7 is unknown"):
        run_training(write_recipe(tmp_path, batch_size=4), data, tmp_path / "two", options=TWO)
    assert capfd.readouterr().err == ""


@needs_proc
def test_a_killed_process_ends_the_training_with_one_error(tmp_path: Path) -> None:
    def kill(done: int, *_: object) -> None:
        if done == 1:
            os.kill(_process_beside(os.getpid()), signal.SIGKILL)

    data, recipe = write_halves(tmp_path / "data"), write_recipe(tmp_path)
    with pytest.raises(ConfigError, match="process 1 of the training was killed by SIGKILL"):
        run_training(recipe, data, tmp_path / "two", options=TWO, progress=kill)
    assert not torch.distributed.is_initialized()


@needs_proc
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)])
def test_no_process_outlives_the_first(number: int, code: int, tmp_path: Path) -> None:
    data, out = write_halves(tmp_path / "data"), tmp_path / "two"
    with _begin_on_two(write_recipe(tmp_path, epochs=100_000), data, out) as process:
        while process.poll() is None and not (out / "metrics.csv").exists():
            time.sleep(0.05)
        other = _process_beside(process.pid)
        process.send_signal(number)
        said = process.communicate()[1]
    assert process.returncode == code, said
    if number == signal.SIGTERM:
        assert "sampath-wsi: stopped by SIGTERM; the same command goes on with --resume" in said
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
