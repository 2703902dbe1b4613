"""The README's commands, run as they stand there, in a folder that holds what a fresh clone holds."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.geojson_validator import validate

from .workflow import ROOT, checkout, read_table, shell


def commands() -> list[str]:
    """Every line of the README's bash blocks."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    return [line for block in blocks for line in block.strip().splitlines()]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Path:
    """A checkout with the environment of this test run as its `.venv`, and a slide of the user's in `data/`."""
    folder = checkout(tmp_path_factory.mktemp("readme"))
    for name in ("Makefile", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)
    (folder / ".venv").mkdir()
    (folder / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    (folder / ".venv" / ".installed").touch()
    (folder / "data").mkdir()
    shutil.copy(shared_data / "slides" / "CMU-1-Small-Region.svs", folder / "data")
    return folder


def run(folder: Path, command: str) -> str:
    done = shell(folder, command)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.mark.slow
def test_every_command_of_the_readme_works(clone: Path) -> None:
    printed: dict[str, str] = {}
    for command in commands():
        if command == "make test":
            # This is that command: CI calls it, and a second one inside it would never end.
            assert "make test" in (ROOT / ".ci" / "run").read_text()
            continue
        printed[command] = run(clone, command)

    demo = clone / "results" / "slides" / "demo"
    scores = json.loads((demo / "evaluation.json").read_text())
    assert scores["macro"]["dice"] >= 0.90
    assert len(scores["classes"]) == 5
    assert "Dice against the truth" in printed["make demo"]
    assert "Nothing to be done" in run(clone, "make demo")
    assert validate(demo / "segmentation.geojson.gz") == []

    mine = clone / "results" / "mine"
    assert [row["slide"] for row in read_table(mine / "cohort.tsv")] == ["CMU-1-Small-Region"]
    assert validate(mine / "slides" / "CMU-1-Small-Region" / "segmentation.geojson.gz") == []
