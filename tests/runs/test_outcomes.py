"""The output at the end of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sampath_wsi.cli import app
from sampath_wsi.cli.results import print_outcomes
from sampath_wsi.cohort.table import SlideOutcome, Summary, read_cohort, write_cohort
from sampath_wsi.files import write_json
from sampath_wsi.model.card import ModelCard
from sampath_wsi.model.zoo import ZOO_DIR
from sampath_wsi.results import RunResults
from sampath_wsi.runs.sheet import SheetRow


def outcome(
    number: int, folder: Path, reason: str = "", warnings: tuple[str, ...] = (), weights: str = "0"
) -> SlideOutcome:
    slide = f"s{number}"
    if reason:
        return SlideOutcome(slide, RunResults(folder).slide(slide), {}, "failed", reason)
    numbers = {"mpp": (0.5, 0.5), "mpp_source": "metadata", "model": "m", "tiles": 1, "tissue_mm2": 1.0, "classes": {}}
    summary = Summary.model_validate(
        {"slide": slide, "file": "f", "weights_sha256": weights, "warnings": warnings, **numbers}
    )
    return SlideOutcome(slide, RunResults(folder).slide(slide), {}, "done", summary=summary)


def test_failures_are_named_and_all_places_that_exist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (objects := tmp_path / "slides" / "s1").mkdir(parents=True)
    (objects / "segmentation.geojson.gz").touch()
    table, page = tmp_path / "cohort.tsv", tmp_path / "cohort.html"
    table.touch()
    print_outcomes([outcome(0, tmp_path, "tile: no."), outcome(1, tmp_path)], tmp_path, table=table, page=page)
    assert capsys.readouterr().out.splitlines() == [
        "1 of 2 slides are done.",
        "  s0: tile: no.",
        "Mend these slides or leave them out, then give the same command again: what is finished stays.",
        "  Model       m",
        f"  Table       {table}",
        f"  For QuPath  {tmp_path}/slides/*/segmentation.geojson.gz",
    ]
    print_outcomes([outcome(1, tmp_path)], tmp_path, table=table, page=None, took=", after 2 s")
    assert capsys.readouterr().out.startswith("1 of 1 slides are done, after 2 s.\n  Model       m\n  Table ")


def test_of_many_failures_the_table_tells_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failed = [outcome(number, tmp_path, "tile: no.") for number in range(50)]
    print_outcomes(failed, tmp_path, table=tmp_path / "cohort.tsv", page=None)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "0 of 50 slides are done."
    assert sum(": tile: no." in line for line in lines) == 20
    assert "  and 30 more, see the table" in lines


def test_warnings_stand_after_failures_on_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    doubtful = outcome(1, tmp_path, warnings=("the slide is dark", "all is Tumor"))
    print_outcomes(
        [outcome(0, tmp_path, "tile: no."), doubtful, outcome(2, tmp_path)], tmp_path, table=tmp_path / "t", page=None
    )
    assert capsys.readouterr().out.splitlines() == [
        "2 of 3 slides are done.",
        "  s0: tile: no.",
        "Mend these slides or leave them out, then give the same command again: what is finished stays.",
        "1 of 3 with warnings:",
        "  s1: the slide is dark; all is Tumor",
        "  Model       m",
    ]


def test_the_model_and_its_limits_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = ModelCard.read(ZOO_DIR / "demo" / "card.json")
    outcomes = [outcome(1, tmp_path), outcome(2, tmp_path, weights=card.weights_sha256 or "")]
    table = tmp_path / "cohort.tsv"
    write_cohort(outcomes, table, card)
    print_outcomes(outcomes, tmp_path, table=table, page=None, card=card)
    limits = "This model knows synthetic tissue only: it was never shown a real slide"
    assert capsys.readouterr().out.splitlines()[1:3] == ["  Model       m", f"  Model       m: {limits}"]
    header, *rows = [line.split("\t") for line in table.read_text().splitlines()]
    assert [dict(zip(header, row, strict=True))["model_limits"] for row in rows] == ["", limits]


def test_show_tells_warnings_to_people_and_programs(tmp_path: Path) -> None:
    summary = outcome(1, tmp_path, warnings=("the slide is dark",)).summary
    assert summary is not None
    write_json(tmp_path / "slides" / "s1" / "summary.json", summary.model_dump(mode="json"))
    assert "  warning: the slide is dark\n" in CliRunner().invoke(app, ["show", str(tmp_path)]).output
    (shown,) = json.loads(CliRunner().invoke(app, ["show", str(tmp_path), "--json"]).output)["slides"]
    assert (shown["model"], shown["warnings"]) == ("m", ["the slide is dark"])


@pytest.mark.parametrize(("status", "code"), [("failed", 2), ("running", 0)])
def test_the_exit_code_of_cohort_says_whether_slides_failed(tmp_path: Path, status: str, code: int) -> None:
    (tmp_path / "slides.tsv").write_text("slide\tpath\na\ta.tif\n")
    write_json(tmp_path / "slides" / "a" / "run" / "tile.json", {"status": status, "error": "no such file."})
    words = ["cohort", "--slides", tmp_path / "slides.tsv", "--results", tmp_path, "--out", tmp_path / "cohort.tsv"]
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == code
    assert "0 of 1 slides are done." in done.output
    assert "a\tfailed" in (tmp_path / "cohort.tsv").read_text()


@pytest.mark.parametrize(
    ("step", "unwanted", "wanted"),
    [
        ("images", {}, {"images": {"entropy": True}}),
        ("tile-objects", {"vectorize": {"tiles": False}}, {"vectorize": {"tiles": True}}),
        ("infer-2-of-4", {"infer": {"parts": 3}}, {"infer": {"parts": 4}}),
    ],
)
def test_a_step_that_nobody_asks_for_any_more_fails_no_slide(
    tmp_path: Path, step: str, unwanted: dict[str, object], wanted: dict[str, object]
) -> None:
    write_json(tmp_path / "slides" / "a" / "run" / f"{step}.json", {"status": "failed", "error": "no."})
    slides = [SheetRow(slide="a", path="a.tif")]
    for config, state in ((unwanted, "unfinished"), (wanted, "failed"), (None, "failed")):
        (found,) = read_cohort(slides, tmp_path, config)
        assert found.state == state, config


def test_scores_count_while_the_sheet_names_the_truth(tmp_path: Path) -> None:
    folder = tmp_path / "slides" / "s1"
    summary = outcome(1, tmp_path).summary
    assert summary is not None
    write_json(folder / "summary.json", summary.model_dump(mode="json"))
    write_json(folder / "evaluation.json", {"classes": {"A": {"dice": 0.5}}, "macro": {"dice": 0.5}})
    (scored,) = read_cohort([SheetRow(slide="s1", path="a.tif", truth="a.truth.tif")], tmp_path)
    assert scored.dice == {"A": 0.5, "macro average": 0.5}
    write_json(folder / "run" / "evaluate.json", {"status": "failed", "error": "no such file."})
    (failed,) = read_cohort([SheetRow(slide="s1", path="a.tif", truth="a.truth.tif")], tmp_path)
    assert (failed.state, failed.reason) == ("failed", "evaluate: no such file.")
    (without,) = read_cohort([SheetRow(slide="s1", path="a.tif")], tmp_path)
    assert (without.state, without.dice) == ("done", {})
