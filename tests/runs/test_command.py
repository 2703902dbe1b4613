"""`sampath-wsi run` and `profile` as they are called, with a stand-in for Snakemake, and how its messages are shown."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sampath_wsi.cli import main
from sampath_wsi.model.card import ModelCard
from sampath_wsi.model.zoo import installed_models
from sampath_wsi.runs import display as workflow_display
from sampath_wsi.runs import process as workflow_process
from sampath_wsi.runs.display import LogHandler
from sampath_wsi.synthetic import make_slide

LIMITS = "This model knows synthetic tissue only: it was never shown a real slide"


class Snakemake:
    """Takes the place of the process: keeps the command, writes what a run would leave, ends with a code."""

    def __init__(self) -> None:
        self.command: list[str] = []
        self.code = 0
        self.records: dict[str, dict[str, str]] = {}
        self.planned: list[dict[str, str]] = []
        self.silent = False

    def __call__(self, command: list[str], environment: dict[str, str], **options: Any) -> int:
        self.command, self.silent = command, bool(options.get("silent"))
        out = Path(command[command.index("--directory") + 1])
        for slide, record in self.records.items():
            (out / "slides" / slide / "run").mkdir(parents=True)
            (out / "slides" / slide / "run" / "tile.json").write_text(json.dumps(record))
        if "--dry-run" in command:
            Path(environment[workflow_display.PLANNED_JOBS]).write_text(json.dumps(self.planned))
        return self.code


@pytest.fixture
def snakemake(monkeypatch: pytest.MonkeyPatch) -> Snakemake:
    stand_in = Snakemake()
    monkeypatch.setattr(workflow_process, "run_snakemake", stand_in)
    return stand_in


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("a.svs", "b.svs"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)
    return tmp_path


def call(*words: str) -> int:
    sys.argv = ["sampath-wsi", *words]
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_words_before_and_after_the_dashes(folder: Path, snakemake: Snakemake) -> None:
    assert (
        call("run", "--model", "demo", "--slides", "a.svs", "b.svs", "--gpus", "3", "--", "--forcerun", "stitch", "-p")
        == 0
    )
    assert snakemake.command[-3:] == ["--forcerun", "stitch", "-p"]
    assert "gpu=3" in snakemake.command
    assert not snakemake.silent  # what was asked of Snakemake may print
    assert (folder / "results" / "slides.tsv").read_text().count(".svs") == 2
    assert call("run", "--model", "demo", "a.svs") == 0
    assert snakemake.silent


def test_failed_slides_make_the_exit_code(
    folder: Path, snakemake: Snakemake, capsys: pytest.CaptureFixture[str]
) -> None:
    snakemake.code, snakemake.records = 1, {"b": {"status": "failed", "error": "b.svs: the file is empty."}}
    assert call("run", "--model", "demo", "--slides", "*.svs", "--out", "res") == 2
    said = capsys.readouterr().out
    assert said.startswith(f"2 slides, model demo -> res\n  demo: {LIMITS}\n0 of 2 slides are done, after ")
    assert "  b: tile: b.svs: the file is empty.\n" in said


def test_a_plan_says_what_and_why(folder: Path, snakemake: Snakemake, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "s.tsv").write_text("slide\tpath\na\ta.svs\nb\tb.svs\ngone\tc.svs\n")
    changed = "Params have changed since last execution: min_area"
    snakemake.planned = [
        {"slide": "b", "step": "vectorize", "reason": changed},
        {"slide": "b", "step": "report", "reason": "Input files updated by another job"},
        {"slide": "gone", "step": "tile", "reason": "Missing output files"},
        {"slide": "", "step": "cohort", "reason": ""},
    ]
    assert call("run", "--model", "demo", "--slides", "s.tsv", "--dry-run") == 0
    assert capsys.readouterr().out.splitlines() == [
        "3 slides, model demo -> results",
        f"  demo: {LIMITS}",
        "  a     finished",
        "  b     vectorize (options changed), report",
        f"  gone  tile  ({folder}/c.svs does not exist)",
        "This was a dry run: nothing was done.",
    ]
    assert not (folder / "results").exists()


def test_a_model_is_asked_for_but_of_demonstration_slides(
    folder: Path, snakemake: Snakemake, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("run", "a.svs") == 2
    assert "no model is named, and these are not demonstration slides. Say --model and one of " in (
        asked := capsys.readouterr().err
    )
    assert all(name in asked for name in installed_models())
    assert "sampath-bcss" not in asked  # known, but not here
    assert not (folder / "results").exists()
    make_slide(folder / "demo.tif", width_px=512, height_px=512)
    assert call("run", "demo.tif") == 0
    assert capsys.readouterr().out.startswith(f"1 slide, model demo -> results\n  demo: {LIMITS}\n")
    assert call("run", "demo.tif", "a.svs") == 2
    for named in (["--config", "model=demo"], ["--config-file", "c.yaml"]):
        (folder / "c.yaml").write_text("model: demo\n")
        assert call("run", "a.svs", *named) == 0


def test_results_of_another_model_are_not_overwritten_unasked(
    folder: Path, snakemake: Snakemake, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "moved").symlink_to(tiny_model)
    words = ("run", "--slides", "a.svs", "--out", "res", "--model")
    snakemake.records = {"a": {"status": "ok"}}
    assert call(*words, str(tiny_model)) == 0
    snakemake.records = {}
    for summary in (None, {"model": "tiny", "weights_sha256": ModelCard.read(tiny_model / "card.json").weights_sha256}):
        if summary:
            (folder / "res" / "slides" / "a" / "summary.json").write_text(json.dumps(summary))
        assert call(*words, "moved") == 0
        snakemake.command = []
        capsys.readouterr()
        for further in ([], ["--dry-run"]):
            assert call(*words, "demo", *further) == 2
            said = capsys.readouterr().err
            assert "res: it holds results of the model tiny (weights " in said
            assert "and demo (weights " in said
            assert "or overwrite them with --replace." in said
        assert snakemake.command == []
    assert "model: demo" not in (folder / "res" / "config.yaml").read_text()
    assert call(*words, "demo", "--replace") == 0
    assert "model: demo" in (folder / "res" / "config.yaml").read_text()
    # The weights of what is finished decide, not what was asked for last.
    assert call(*words, "demo") == 2
    assert call(*words, "moved") == 0


def test_a_plan_names_missing_files_of_a_sheet(
    folder: Path, snakemake: Snakemake, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "s.tsv").write_text("slide\tpath\troi\na\ta.svs\tno.geojson\n")
    snakemake.planned = []
    assert call("run", "--slides", "s.tsv", "--model", "demo", "--dry-run") == 0
    assert f"  a  finished  ({folder}/no.geojson does not exist)" in capsys.readouterr().out.splitlines()


def test_a_class_that_the_model_lacks_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run", "--slides", "*.svs", "--model", "demo", "--config", "images.probability=Tumour") == 2
    assert "config, images.probability: the model knows no class 'Tumour'" in capsys.readouterr().err
    assert not (folder / "results").exists()


def test_a_profile_is_copied_to_be_filled_in(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("profile", "lsf", "--out", "mine") == 0
    assert "run --profile ./mine" in capsys.readouterr().out
    assert {path.name for path in (folder / "mine").iterdir()} >= {"config.yaml", "status.sh", "submit.sh"}
    assert call("profile", "lsf", "--out", "mine") == 2
    assert call("profile", "lfs", "--out", "other") == 2
    assert "there is no profile 'lfs'. Use one of: kubernetes, lsf" in capsys.readouterr().err


@pytest.fixture
def handler(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LogHandler]:
    handler = LogHandler(SimpleNamespace(dryrun=False), None)  # type: ignore[arg-type]
    yield handler
    handler.close()
    logging.getLogger("sampath_wsi").setLevel(logging.NOTSET)


def message(text: str | None = None, level: int = logging.INFO, **said: Any) -> logging.LogRecord:
    return logging.makeLogRecord({"msg": text, "levelno": level, **said})


def job(number: int, step: str, slide: str = "a") -> logging.LogRecord:
    wildcards = {"slide": slide} if slide else None
    log = [f"logs/{slide}/{step}.log"]
    return message(event="job_info", jobid=number, rule_name=step, wildcards=wildcards, reason="new", log=log)


def test_a_line_a_step_and_the_reason_of_a_failure(handler: LogHandler, capsys: pytest.CaptureFixture[str]) -> None:
    Path("logs/b").mkdir(parents=True)
    Path("logs/b/tile.log").write_text("tile: b.svs\nsampath-wsi: error: b.svs: the file is empty.\n")
    for record in (
        message("Building DAG of jobs..."),
        message("Job stats: ...", event="run_info", stats={"tile": 2, "total": 9}),
        job(1, "tile"),
        job(2, "tile", "b"),
        job(3, "cohort", ""),
    ):
        handler.emit(record)
    assert handler.shown is not None
    assert handler.shown.describe() == "0 of 9 steps (a: tile, b: tile and 1)"
    handler.emit(message(event="job_finished", job_id=1))
    handler.emit(message("Error in rule tile", logging.ERROR, event="job_error", jobid=2))
    handler.emit(message("RuleException: ...", logging.ERROR, event="error", exception="RuleException"))
    handler.emit(message("At least one job did not complete successfully.", logging.ERROR, event="error"))
    handler.emit(message("the disk is\nslow", logging.WARNING))
    handler.emit(message(event="progress", done=1, total=9))
    said = [line.split(" ", 1)[1] for line in capsys.readouterr().err.splitlines()]
    assert said[0].startswith("a: tile, 0.0 s")
    assert said[1:] == ["b: tile FAILED: b.svs: the file is empty. (logs/b/tile.log)", "the disk is slow"]
    assert handler.shown.describe() == "1 of 9 steps (cohort)"


def test_a_job_cut_off_while_it_starts_was_interrupted(handler: LogHandler, capsys: pytest.CaptureFixture[str]) -> None:
    Path("logs/b").mkdir(parents=True)
    Path("logs/b/tile.log").write_text("Traceback (most recent call last):\nKeyboardInterrupt: \n")
    handler.emit(job(2, "tile", "b"))
    handler.emit(message("Error in rule tile", logging.ERROR, event="job_error", jobid=2))
    assert "b: tile FAILED: interrupted (logs/b/tile.log)" in capsys.readouterr().err


def test_a_long_run_says_how_long_it_takes_and_where_logs_lie(
    handler: LogHandler, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    handler.emit(message("Job stats: ...", event="run_info", stats={"total": 40}))
    for done in (18, 19):
        handler.emit(message(event="progress", done=done, total=40))
    assert handler.shown is not None
    assert handler.shown.describe() == "19 of 40 steps"
    handler.emit(message(event="progress", done=20, total=40))
    assert handler.shown.describe().endswith(" left")
    (folder / "out").mkdir()
    monkeypatch.setenv(workflow_display.RUN_FROM, str(folder))
    monkeypatch.chdir("out")
    handler.emit(job(1, "tile", "b"))
    handler.emit(message("Error in rule tile", logging.ERROR, event="job_error", jobid=1))
    assert capsys.readouterr().err.endswith("(out/logs/b/tile.log)\n")


def test_an_error_that_a_rule_passes_on_is_told_alone(handler: LogHandler, capsys: pytest.CaptureFixture[str]) -> None:
    place = 'file "/x/images.smk", line 23'
    text = f'WorkflowError in {place}:\nconfig: no class "T".\n  {place.replace("file", "File")}, in <module>'
    handler.emit(message(text, logging.ERROR, event="error", exception="WorkflowError"))
    assert capsys.readouterr().err.endswith(' config: no class "T".\n')


def test_a_dry_run_writes_down_what_was_planned(
    handler: LogHandler, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(workflow_display.PLANNED_JOBS, str(folder / "jobs.json"))
    handler.common_settings = SimpleNamespace(dryrun=True)  # type: ignore[assignment]
    handler.emit(job(1, "tile"))
    handler.emit(message("Job stats: ...", event="run_info", stats={"total": 9}))
    handler.close()
    assert json.loads((folder / "jobs.json").read_text()) == [{"slide": "a", "step": "tile", "reason": "new"}]
