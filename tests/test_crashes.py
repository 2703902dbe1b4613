"""Each stage is killed at random moments: a plain rerun finishes, with the bytes of an undisturbed run."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .helpers import blob_slide, contents

pytestmark = pytest.mark.slow
# The same bytes are promised for one machine and number of threads: a sum that more threads share rounds otherwise.
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
KILLS = 20
# When a command is killed: after so many seconds, or (journal, lines, seconds): so long after it has so many lines.
Moment = float | tuple[str, int, float]
OUTPUTS = {
    "tile": "tiles.zarr",
    "infer": "probabilities.zarr",
    "stitch": "segmentation.ome.zarr",
    "vectorize": "segmentation.geojson.gz",
}


class Zygote:
    """See :mod:`tests.zygote`."""

    def __init__(self, log: Path) -> None:
        self.log = log
        command = [sys.executable, str(Path(__file__).with_name("zygote.py"))]
        self.process = subprocess.Popen(
            command, env=ONE_THREAD, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, arguments: list[str], kill_at: Moment | None = None) -> tuple[int, float]:
        """Exit code and duration of a command line."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([arguments, kill_at, str(self.log)]) + "\n")
        self.process.stdin.flush()
        code, seconds = json.loads(self.process.stdout.readline())
        return code, seconds

    @property
    def progress(self) -> int:
        """How many units the last command reported as done."""
        steps = [line.split()[1] for line in self.log.read_text().splitlines() if line.startswith("progress")]
        return int(steps[-1]) if steps else 0


@pytest.fixture(scope="module")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    made = Zygote(tmp_path_factory.mktemp("zygote") / "log")
    yield made
    with made.process as process:
        assert process.stdin is not None
        process.stdin.close()


def arguments(stage: str, whole: Path, out: Path, model: Path) -> list[str]:
    """The command line of a stage that reads the undisturbed outputs of the one before."""
    given = {
        "tile": [str(whole / "s.tif"), "--model", str(model)],
        "infer": [str(whole / "tiles.zarr"), "--model", str(model), "--batch", "4", "--device", "cpu"],
        "stitch": [str(whole / "probabilities.zarr")],
        "vectorize": [str(whole / "segmentation.ome.zarr")],
    }[stage]
    return [stage, *given, "--out", str(out / OUTPUTS[stage]), "--record", str(out / "run" / f"{stage}.json")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, zygote: Zygote, tiny_model: Path) -> Path:
    """A folder with a slide and the outputs of undisturbed runs of all stages."""
    folder = tmp_path_factory.mktemp("whole")
    blob_slide(folder / "s.tif", size=1200)
    for stage in OUTPUTS:
        code, _ = zygote.run(arguments(stage, folder, folder, tiny_model))
        assert code == 0, zygote.log.read_text()
    return folder


def written(journal: Path) -> int:
    """How many units of work a growing store names as done."""
    return sum(line.isdigit() for line in journal.read_text().splitlines()) if journal.exists() else 0


def moments(kill: int, seconds: float, journal: Path, rng: random.Random) -> Iterator[Moment]:
    """When to kill a stage, ever earlier, for a machine that is faster than it was.

    One moment in each twentieth of the stage; but every other one while units of work are written, which a stage may do
    so fast that no twentieth falls in there.
    """
    if kill % 2 and journal.parent.name.startswith((".tiles", ".probabilities")):
        for lines in range(rng.randrange(2, 8), 1, -1):
            yield str(journal), lines, rng.random() * 0.005
        while True:
            yield str(journal), 2, 0.0
    moment_s = (kill + rng.random()) / KILLS * seconds
    while True:
        yield moment_s
        moment_s *= 0.9


@pytest.mark.parametrize("stage", OUTPUTS)
def test_killed_at_any_moment_a_rerun_gives_the_same_bytes(
    stage: str, whole: Path, tiny_model: Path, zygote: Zygote, tmp_path: Path
) -> None:
    rng = random.Random(f"crashes of {stage}")
    _, seconds = zygote.run(arguments(stage, whole, tmp_path / "timed", tiny_model))
    expected = contents(tmp_path / "timed")
    resumed = 0
    for kill in range(KILLS):
        out = tmp_path / str(kill)
        command = arguments(stage, whole, out, tiny_model)
        journal = out / f".{OUTPUTS[stage]}.partial" / "done.journal"
        for moment in moments(kill, seconds, journal, rng):
            killed = zygote.run(command, moment)[0] == -signal.SIGKILL
            if killed and (isinstance(moment, float) or journal.exists()):
                break
            shutil.rmtree(out)
        handed_over = zygote.progress
        done = written(journal)
        finished = (out / OUTPUTS[stage]).exists()
        code, _ = zygote.run(command)
        assert code == 0, zygote.log.read_text()
        assert contents(out) == expected
        assert json.loads((out / "run" / f"{stage}.json").read_text())["status"] == "ok"
        if stage == "infer" and not finished:
            facts = json.loads((out / OUTPUTS[stage] / "run" / "zarr.json").read_text())["attributes"]
            assert facts["tiles"] - facts["computed"] == min(4 * done, facts["tiles"])
            # What was reported as done is written, but for one batch.
            assert handed_over <= 4 * done + 4
        resumed += done > 0
    assert resumed >= KILLS // 2 or stage in ("stitch", "vectorize")


def test_the_command_itself_is_killed_and_goes_on(whole: Path, tiny_model: Path, tmp_path: Path) -> None:
    journal = tmp_path / ".probabilities.zarr.partial" / "done.journal"
    command = [str(Path(sys.executable).with_name("sampath-wsi")), *arguments("infer", whole, tmp_path, tiny_model)]
    with subprocess.Popen(command, env=ONE_THREAD, stderr=subprocess.PIPE) as process:
        while process.poll() is None and not written(journal):
            time.sleep(0.001)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    done = written(journal)
    assert subprocess.run(command, env=ONE_THREAD, capture_output=True).returncode == 0
    facts = json.loads((tmp_path / "probabilities.zarr" / "run" / "zarr.json").read_text())["attributes"]
    assert 0 < facts["computed"] <= facts["tiles"] - 4 * done
    shutil.rmtree(tmp_path / "run")
    expected = {name: data for name, data in contents(whole).items() if name.startswith("probabilities.zarr")}
    assert contents(tmp_path) == expected
