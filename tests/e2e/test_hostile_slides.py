"""Slides with names that shells, workflows and spreadsheets stumble over, and slides that a stage dies of."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

from tests.helpers import blob_slide

from .workflow import checkout, read_table, snakemake

NAMES = [
    "with 'single' \"double\" [1] (2) <3> 名前 é $(touch ran) `touch ran`; touch ran & touch ran | touch ran > ran",
    "-rf --out=ran",
    "=cmd() a*b?c\\d#e%f~!",
]
DIES_AT = "kills.tif"
# Begins every process of the run: native code that crashes at a slide, as far as anything above it can tell.
CRASH = f"""
import os, signal, sys
if sys.argv[1:2] == ["tile"] and any(word.endswith({DIES_AT!r}) for word in sys.argv):
    import openslide
    openslide.OpenSlide = lambda path: os.kill(os.getpid(), signal.SIGSEGV)
"""


@pytest.mark.slow
def test_odd_names_work_and_a_stage_that_crashes_has_a_row(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = checkout(tmp_path / "work $(touch ran) 'y'")
    first = blob_slide(folder / "data" / DIES_AT, size=300)
    rows = [["slide", "path", "status", "=patient"], ["kills", f"data/{DIES_AT}", "@x", "=1+1"]]
    for number, name in enumerate(NAMES):
        slide = f"{name}.tif"
        os.link(first, folder / slide)
        rows.append([f"s{number}.a-b_c", slide, "ok", "-1"])
    with open(folder / "the {slides}'.tsv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter="\t").writerows(rows)
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "sitecustomize.py").write_text(CRASH)
    monkeypatch.setenv("PYTHONPATH", str(modules))

    done = snakemake(
        folder, "--config", "slides=the {slides}'.tsv", f"model={tiny_model}", "output=the results $(touch ran)"
    )
    assert done.returncode != 0
    assert (folder / "the results $(touch ran)" / "cohort.tsv").exists(), done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    table = {row["slide"]: row for row in read_table(folder / "the results $(touch ran)" / "cohort.tsv")}
    assert table["kills"]["status"] == "failed", done.stderr
    assert table["kills"]["reason"].startswith("tile: did not finish")
    assert table["kills"]["status (sheet)"] == "'@x"
    assert table["kills"]["'=patient"] == "'=1+1"
    for number in range(len(NAMES)):
        assert table[f"s{number}.a-b_c"]["status"] == "ok", (NAMES[number], table[f"s{number}.a-b_c"])
        assert table[f"s{number}.a-b_c"]["'=patient"] == "-1"
    assert not list(folder.rglob("ran"))
    known = {"Snakefile", "workflow", "profiles", "config", "envs", "data", ".snakemake", "the results $(touch ran)"}
    assert {path.name for path in folder.iterdir()} == {*known, "the {slides}'.tsv", *(f"{name}.tif" for name in NAMES)}


@pytest.mark.parametrize("name", ["../x", "/tmp/x", ".", "..", "", "x" * 300, "a b", "a\tb", "$(x)", "é", "-a", "{x}"])
def test_slide_ids_that_are_no_file_names_are_refused(tmp_path: Path, name: str) -> None:
    """The sheet is read before anything runs (tests/e2e/test_workflow.py): see there for the workflow's part."""
    from sampath_wsi.errors import ConfigError
    from sampath_wsi.runs.sheet import read_slides

    with open(tmp_path / "slides.tsv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter="\t").writerows([["slide", "path"], ["good", "a.tif"], [name, "b.tif"]])
    with pytest.raises(ConfigError, match=r"row 2(, slide)?: .*'"):
        read_slides(str(tmp_path / "slides.tsv"))


@pytest.mark.parametrize("name", ["{x}.tif", "a\nb.tif", "a\x1b[2Jb.tif", "a\udce9b.tif"])
def test_slide_files_that_the_workflow_cannot_name_are_refused(tmp_path: Path, name: str) -> None:
    from sampath_wsi.errors import ConfigError
    from sampath_wsi.runs.sheet import read_slides

    (tmp_path / name).touch()
    with pytest.raises(ConfigError, match=r"slides: .*, path: .* cannot be used") as error:
        read_slides(str(tmp_path / "*.tif"))
    assert str(error.value).isprintable()
