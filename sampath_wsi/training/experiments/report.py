"""Writes what an experiment found: CSV for programs, Markdown and figures for people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sampath_wsi.files import write_table, written_aside
from sampath_wsi.training.experiments.figures import draw_sweep, draw_table1
from sampath_wsi.training.experiments.markdown import report_text, sweep_text
from sampath_wsi.training.experiments.runs import read_json, read_results
from sampath_wsi.training.experiments.tables import class_table, sweep_table, table1, time_table

_SMOKE_NOTE = "smoke run on synthetic stand-ins: means nothing"


def write_report(
    data_set: str, scores: Sequence[Path], leakage: Sequence[Path], out: Path, *, smoke: bool = False
) -> None:
    """Write ``table1.csv``, ``classes.csv``, ``times.csv``, ``report.md``, ``table1.png`` and ``table1.svg``.

    Parameters
    ----------
    data_set
        ``bcss``, ``crag`` or ``glas``.
    scores
        See :func:`sampath_wsi.training.experiments.runs.read_results`.
    leakage
        Files ``SPLIT/leakage.json`` of ``prepare check``.
    out
        The folder to write.
    smoke
        Say on everything for people that the numbers mean nothing.

    Raises
    ------
    DataError
        If a file cannot be read, or there are no scores.
    """
    results = read_results(scores)
    lines = {path.parent.name: str(read_json(path, "Run `prepare check` again.").get("summary")) for path in leakage}
    rows = table1(data_set, results)
    write_table(out / "table1.csv", rows)
    write_table(out / "classes.csv", class_table(results))
    write_table(out / "times.csv", time_table(data_set, results))
    draw_table1(data_set, rows, out / "table1", note=_SMOKE_NOTE if smoke else "")
    _write_text(out / "report.md", report_text(data_set, results, lines, smoke=smoke))


def write_sweep(
    data_set: str, scores: Sequence[Path], own_weights: tuple[float, float], out: Path, *, smoke: bool = False
) -> None:
    """Write ``sweep.csv``, ``sweep.md``, ``sweep.png`` and ``sweep.svg``.

    Parameters
    ----------
    own_weights
        Alpha and beta of the recipe, which the runs have that are not named otherwise.

    Raises
    ------
    DataError
        If a file cannot be read, or there are no scores.
    """
    results = read_results(scores)
    rows = sweep_table(results, own_weights)
    write_table(out / "sweep.csv", rows)
    draw_sweep(data_set, rows, out / "sweep", note=_SMOKE_NOTE if smoke else "")
    _write_text(out / "sweep.md", sweep_text(data_set, results, own_weights, smoke=smoke))


def _write_text(path: Path, text: str) -> None:
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")
