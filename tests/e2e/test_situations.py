"""What is made anew when something changes, and what is not: a finished cohort, and what people do with it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import blob_slide

ALL = "tile, infer, stitch, vectorize, report"
Change = Callable[[Path], "list[str] | None"]


def run(folder: Path, *words: object, **environment: str) -> str:
    command = [str(Path(sys.executable).with_name("sampath-wsi")), "run", "--out", "r", "--slides", "s.tsv"]
    done = subprocess.run(
        [*command, *map(str, words)], cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A run of two slides, and a folder with what belongs to it."""
    folder = tmp_path_factory.mktemp("cohort")
    shutil.copytree(tiny_model, folder / "model")
    blob_slide(folder / "a.tif", size=300)
    blob_slide(folder / "b.tif", size=260)
    (folder / "s.tsv").write_text("slide\tpath\tpatient\na\ta.tif\t1\nb\tb.tif\t2\n")
    run(folder, "--model", "model")
    return folder


def rewritten(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new))


def other_pixels(folder: Path) -> None:
    """Another slide of the same size and an older time under the same name."""
    found = (folder / "a.tif").stat()
    data = bytearray((folder / "a.tif").read_bytes())
    data[len(data) // 2] ^= 255
    (folder / "a.tif").write_bytes(data)
    os.utime(folder / "a.tif", ns=(found.st_atime_ns, found.st_mtime_ns - 10**12))


def moved(folder: Path) -> None:
    (folder / "archive").mkdir()
    shutil.move(folder / "a.tif", folder / "archive" / "elsewhere.tif")
    rewritten(folder / "s.tsv", "\ta.tif", "\tarchive/elsewhere.tif")


def copied(folder: Path) -> None:
    shutil.copy(folder / "a.tif", folder / "copy.tif")
    (folder / "copy.tif").replace(folder / "a.tif")


def added(folder: Path) -> None:
    blob_slide(folder / "c.tif", size=280)
    rewritten(folder / "s.tsv", "b\tb.tif\t2\n", "b\tb.tif\t2\nc\tc.tif\t3\n")


def old_keys(folder: Path) -> list[str]:
    (folder / "old.yaml").write_text("infer: {shards: 1}\ndask: null\nimages: {tiff: false}\n")
    return ["--config-file", "old.yaml"]


def other_mpp(folder: Path) -> None:
    (folder / "s.tsv").write_text("slide\tpath\tmpp\na\ta.tif\t0.6\nb\tb.tif\t\n")


def other_card(change: Callable[[dict[str, Any]], None]) -> Change:
    def edit(folder: Path) -> None:
        path = folder / "model" / "card.json"
        card = json.loads(path.read_text())
        change(card)
        path.write_text(json.dumps(card))

    return edit


NOTHING: dict[str, Change] = {
    "again": lambda folder: None,
    "touched": lambda folder: (folder / "a.tif").touch(),
    "copied": copied,
    "moved": moved,
    "away": lambda folder: (folder / "a.tif").unlink(),
    "model moved": lambda folder: ["--model", str(shutil.move(folder / "model", folder / "elsewhere"))],
    "another device": lambda folder: ["--config", "infer.device=cpu", "--config", "infer.batch=1"],
    "a column of one's own": lambda folder: rewritten(folder / "s.tsv", "\t1\n", "\t9\n"),
    "a slide less": lambda folder: rewritten(folder / "s.tsv", "b\tb.tif\t2\n", ""),
    "a slide more": added,
    "other parts": lambda folder: ["--config", "infer.parts=1"],
    "old keys": old_keys,
    "another description": other_card(lambda card: card.update(description="new", name="other")),
    "results moved": lambda folder: shutil.copytree(folder / "r", folder / "kept") and None,
}
ANEW: dict[str, tuple[Change, str]] = {
    "replaced": (other_pixels, ALL),
    "another min_area": (lambda folder: ["--config", "vectorize.min_area=30"], "vectorize, report"),
    "another type": (lambda folder: ["--config", "stitch.dtype=float32"], "stitch, vectorize, report"),
    "another precision": (lambda folder: ["--config", "infer.precision=bf16"], ALL),
    "another overlap": (lambda folder: ["--config", "tile.overlap=32"], ALL),
    "another mpp": (other_mpp, ALL),
    "another colour": (other_card(lambda card: card["classes"][0].update(color=[1, 2, 3])), ALL),
    "another mean": (other_card(lambda card: card.update(mean=[0.5, 0.5, 0.5])), ALL),
}


def plan_after(finished: Path, folder: Path, change: Change) -> dict[str, str]:
    """The steps of each slide after a change, without the reasons."""
    shutil.copytree(finished, folder, symlinks=True)
    # The copy is the same place to the run: it knows files by name only where they are.
    rewritten(folder / "r" / ".content.json", str(finished), str(folder))
    words = change(folder) or []
    model = [] if "--model" in words else ["--model", "model"]
    printed = run(folder, *model, *words, "--dry-run")
    lines = re.findall(r"^  (\w+) +(.*?)(?:  \(.*does not exist\))?$", printed, re.MULTILINE)
    return {slide: re.sub(r" \(.*?\)", "", steps) for slide, steps in lines}


@pytest.mark.parametrize("name", NOTHING)
def test_nothing_finished_is_made_anew(finished: Path, tmp_path: Path, name: str) -> None:
    steps = plan_after(finished, tmp_path / "work", NOTHING[name])
    assert steps.pop("c", ALL) == ALL
    assert set(steps.values()) == {"finished"}, steps


@pytest.mark.parametrize("name", ANEW)
def test_only_what_changed_is_made_anew(finished: Path, tmp_path: Path, name: str) -> None:
    change, expected = ANEW[name]
    steps = plan_after(finished, tmp_path / "work", change)
    assert steps["a"] == expected
    assert steps["b"] == ("finished" if name in ("replaced", "another mpp") else expected)


@pytest.mark.parametrize(("stage", "expected"), [("stitch", "stitch, vectorize, report"), ("tile", ALL)])
def test_the_workflow_makes_anew_what_changed(finished: Path, tmp_path: Path, stage: str, expected: str) -> None:
    """As after an upgrade that changes a stage's arithmetic."""
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "sitecustomize.py").write_text(f"from sampath_wsi.stages import VERSIONS\nVERSIONS['{stage}'] = 99\n")
    path = os.pathsep.join(filter(None, [str(modules), os.environ.get("PYTHONPATH")]))
    shutil.copytree(finished, tmp_path / "work", symlinks=True)
    printed = run(tmp_path / "work", "--model", "model", "--dry-run", PYTHONPATH=path)
    found = re.sub(r" \(.*?\)", "", printed)
    assert re.findall(r"^  a +(.*)$", found, re.MULTILINE) == [expected]


def test_inference_is_kept_where_only_words_changed(finished: Path, tmp_path: Path) -> None:
    """Snakemake does the job again, and removes its output before: what the model computed must survive that."""
    work = tmp_path / "work"
    shutil.copytree(finished, work, symlinks=True)
    (work / "s.tsv").write_text("slide\tpath\tmpp\na\ta.tif\t0.5x0.5\n")
    run(work, "--model", "model")
    record = json.loads((work / "r" / "slides" / "a" / "run" / "infer.json").read_text())
    assert record["status"] == "ok"
    assert (record["computed"], record["tiles"] > 0) == (0, True)
