"""The paper's experiments as a user runs them, on stand-ins: every rule, for all three data sets."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from .workflow import checkout, snakemake, snapshot

TARGETS = ("experiment_bcss", "experiment_crag", "experiment_glas", "sweep_crag")
# A sample sheet that is not there: the experiments must not miss it.
SMOKE = ("--config", "smoke=true", "slides=none.tsv")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def check_table(path: Path, expected: list[tuple[str, str]], scope: str) -> None:
    rows = rows_of(path)
    assert [(row["row"], row["split"]) for row in rows] == expected
    for row in rows:
        assert row["scope"] == scope
        assert int(row["images"]) == 2
        for name in ("dice", "iou", "accuracy"):
            assert 0 <= float(row[f"{name}_low"]) <= float(row[name]) <= float(row[f"{name}_high"]) <= 1
        assert 0 <= float(row["paper_dice"]) <= 1
        assert 0 <= float(row["paper_iou"]) <= 1


def check_pictures(folder: Path, name: str) -> None:
    with Image.open(folder / f"{name}.png") as picture:
        assert min(picture.size) > 300
        assert len(picture.convert("RGB").getcolors(2**24)) > 20
    assert "means nothing" in (folder / f"{name}.svg").read_text()


@pytest.mark.slow
def test_smoke_run_of_every_experiment(tmp_path: Path) -> None:
    folder = checkout(tmp_path / "work")
    done = snakemake(folder, *TARGETS, *SMOKE)
    assert done.returncode == 0, done.stderr
    results = folder / "results" / "experiments-smoke"
    assert [p.name for p in (folder / "results").iterdir()] == ["experiments-smoke"]

    bcss = [("no_sam", "official"), ("sampath", "official")]
    check_table(results / "bcss" / "table1.csv", bcss, "macro")
    crag = [("vanilla", ""), ("vanilla_pp", ""), ("no_pathology", "official"), ("sampath", "official")]
    check_table(results / "crag" / "table1.csv", crag, "Gland")
    glas = [("sampath", "official"), ("sampath", "disjoint")]
    check_table(results / "glas" / "table1.csv", glas, "Gland")
    printed = {row["row"]: row["printed_dice"] for row in rows_of(results / "bcss" / "table1.csv")}
    assert printed == {"no_sam": "0.7813", "sampath": "0.7949"}
    corrected = [row["printed_iou_corrected"] for row in rows_of(results / "crag" / "table1.csv")]
    assert corrected[2:] == ["0.7262", "0.7923"]
    assert {row["printed_dice"] for row in rows_of(results / "glas" / "table1.csv")} == {""}

    assert [row["printed_s"] for row in rows_of(results / "crag" / "times.csv")] == ["0.38", "", "", "0.29"]
    assert len(rows_of(results / "bcss" / "classes.csv")) == 2 * 5
    sweep = [(row["parameter"], float(row["value"])) for row in rows_of(results / "crag" / "sweep.csv")]
    assert sweep == [("alpha", 0.125), ("alpha", 0.25), ("beta", 0)]
    for name in ("bcss", "crag", "glas"):
        check_pictures(results / name, "table1")
        text = (results / name / "report.md").read_text()
        assert "these numbers mean nothing" in text
        for split in ("official", "disjoint"):
            if (path := results / name / split / "leakage.json").exists():
                assert json.loads(path.read_text())["summary"] in text
    check_pictures(results / "crag", "sweep")
    glas_text = (results / "glas" / "report.md").read_text()
    assert "LEAKAGE: " in glas_text
    assert "testA share 1 group (patient3)" in glas_text
    assert "no leakage between train, val, testA" in glas_text
    cards = sorted(results.glob("*/*/runs/*/model/card.json"))
    assert len(cards) == 2 + 3 + 2
    for card in map(json.loads, (path.read_text() for path in cards)):
        assert bool(card["encoders"]) is not card["name"].startswith("glas")
        assert ("pretraining" in str(card["recipe"]["start_from"])) is card["name"].startswith("glas")

    assert "Nothing to be done" in snakemake(folder, *TARGETS, *SMOKE).stderr

    # What was cut off before its end goes on: here a training whose model is there already, and all that comes after.
    cards[0].unlink()
    before = snapshot(results / "bcss" / "official" / "test")
    again = snakemake(folder, "experiment_bcss", *SMOKE)
    assert again.returncode == 0, again.stderr
    assert "rule experiment_stand_in" not in again.stderr
    after = snapshot(results / "bcss" / "official" / "test")
    counts = [name for name in before if name.endswith("counts.csv")]
    assert [name for name in counts if before[name] != after[name]] == []


def test_missing_data_are_named_with_where_to_get_them(tmp_path: Path) -> None:
    folder = checkout(tmp_path / "work")
    done = snakemake(folder, "experiment_glas", "--config", "experiments={glas: {rows: [sampath], source: nowhere}}")
    assert done.returncode != 0
    assert "nowhere: there is no such folder" in done.stderr
    assert "Download GlaS (https://" in done.stderr
    assert not list((folder / "results").rglob("cohort.tsv"))
