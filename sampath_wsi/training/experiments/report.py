"""The report of an experiment: CSV for programs, Markdown and figures for people."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from sampath_wsi.files import write_table, written_aside
from sampath_wsi.metrics import METRICS
from sampath_wsi.training.experiments.figures import draw_sweep, draw_table1
from sampath_wsi.training.experiments.plan import SPLITS
from sampath_wsi.training.experiments.tables import (
    Result,
    SweepPoint,
    class_table,
    read_leakage,
    read_results,
    sweep_points,
    sweep_table,
    table1,
    time_table,
)
from sampath_wsi.training.scoring.paper import BEST_WEIGHTS, SECONDS_DEVICE, TITLES
from sampath_wsi.training.scoring.scores import Score

_SMOKE_NOTE = "smoke run on synthetic stand-ins: means nothing"
_SMOKE_TEXT = "**Smoke run on synthetic stand-ins: these numbers mean nothing.**"
_CAPTION = {
    "official": "validation: whole groups of the official training split",
    "disjoint": "no group of the test split in training or validation",
    "authors": "the folds of the paper's authors",
}


def write_report(
    data_set: str, scores: Sequence[Path], leakage: Sequence[Path], out: Path, *, smoke: bool = False
) -> None:
    """Write ``table1.csv``, ``classes.csv``, ``times.csv``, ``report.md``, ``table1.png`` and ``table1.svg``.

    Parameters
    ----------
    data_set
        ``bcss``, ``crag`` or ``glas``.
    scores
        See :func:`sampath_wsi.training.experiments.tables.read_results`.
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
    results = read_results(data_set, scores)
    lines = {path.parent.name: read_leakage(path) for path in leakage}
    write_table(out / "table1.csv", table1(results))
    write_table(out / "classes.csv", class_table(results))
    write_table(out / "times.csv", time_table(results))
    draw_table1(results, out / "table1", note=_SMOKE_NOTE if smoke else "")
    _write_text(out / "report.md", _report_parts(results, lines), smoke=smoke)


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
    points = sweep_points(read_results(data_set, scores), own_weights)
    write_table(out / "sweep.csv", sweep_table(points))
    draw_sweep(points, out / "sweep", note=_SMOKE_NOTE if smoke else "")
    _write_text(out / "sweep.md", _sweep_parts(data_set, points, own_weights), smoke=smoke)


def _write_text(path: Path, parts: Sequence[str], *, smoke: bool) -> None:
    title, *rest = parts
    with written_aside(path) as aside:
        text = "\n\n".join(part for part in (title, _SMOKE_TEXT if smoke else "", *rest) if part)
        aside.write_text(f"{text}\n", encoding="utf-8")


def _report_parts(results: Sequence[Result], leakage: Mapping[str, str]) -> list[str]:
    """Table 1, scores of the classes, prediction times and leakage (a line a split) of one data set, as paragraphs."""
    parts = [f"# {TITLES[results[0].data_set]}: the experiments of the paper"]
    vanilla = [result for result in results if not result.split]
    for split in [split for split in SPLITS if any(result.split == split for result in results)]:
        trained = [result for result in results if result.split == split]
        parts += [f"## Table 1, split `{split}`", f"{_CAPTION[split]}. {leakage.get(split, '')}".strip()]
        parts += [_table1([*vanilla, *trained]), _seeds(trained)]
    if len(vanilla) == len(results):
        parts += ["## Table 1", _table1(vanilla)]
    parts += [_formulas(results), "## Classes", _classes(results), "## Prediction time", _times(results)]
    return parts


def _sweep_parts(data_set: str, points: Sequence[SweepPoint], own_weights: tuple[float, float]) -> list[str]:
    """Figure 4 as a table, as paragraphs."""
    best = BEST_WEIGHTS.get(data_set)
    return [
        f"# {TITLES[data_set]}: weights of the loss (Figure 4)",
        "alpha: share of the focal loss against Dice; beta: weight of the IoU loss. Where one varies, the other is the "
        f"recipe's (alpha {own_weights[0]:g}, beta {own_weights[1]:g})."
        + (f" Best in the paper: alpha {best[0]:g}, beta {best[1]:g}." if best else ""),
        markdown_table(
            "Split | Weight | Value | Dice (95 %) | Dice as in the paper",
            [
                (p.result.split, p.parameter, f"{p.value:g}", _interval(p.result.dice), _number(p.result.paper("dice")))
                for p in points
            ],
        ),
    ]


def markdown_table(header: str, rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; a bar inside a cell is escaped.

    Parameters
    ----------
    header
        Names of the columns, between bars.
    """
    escaped = [[cell.replace("|", r"\|") for cell in row] for row in rows]
    names = header.split(" | ")
    return "\n".join(f"| {' | '.join(row)} |" for row in (names, ["---"] * len(names), *escaped))


def _table1(results: Sequence[Result]) -> str:
    return markdown_table(
        "Row | Seed | Images | Dice (95 %) | IoU (95 %) | Dice as in the paper | IoU as in the paper | Dice printed | "
        "IoU printed | IoU printed, corrected",
        [
            (
                result.label,
                "" if result.run.seed is None else str(result.run.seed),
                str(result.scores.fields),
                _interval(result.dice),
                _interval(result.iou),
                *(_number(value) for value in (result.paper("dice"), result.paper("iou"), *result.printed)),
            )
            for result in results
        ],
    )


def _seeds(results: Sequence[Result]) -> str:
    """Mean and spread of the Dice over seeds, where there are several."""
    lines = []
    for label in dict.fromkeys(result.label for result in results):
        values = [r.dice.value for r in results if r.label == label and r.dice.value is not None]
        if len(values) > 1:
            spread = f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}"
            lines.append(f"- {label}: Dice {spread} (mean and standard deviation over {len(values)} seeds)")
    return "\n".join(lines)


def _formulas(results: Sequence[Result]) -> str:
    lines = ["Intervals: 95 %, bootstrap over images. As in the paper:"]
    for prompted, name in ((True, "vanilla SAM"), (False, "trained rows")):
        if found := next((r.scores.as_in_the_paper for r in results if r.run.prompted is prompted), None):
            formulas = "; ".join(f"{key.replace('_', ' ')}: {entry.formula}" for key, entry in found.items())
            lines.append(f"- {name}: {formulas}")
    return "\n".join(lines)


def _classes(results: Sequence[Result]) -> str:
    return markdown_table(
        "Row | Run | Class | Dice | IoU | Precision | Recall",
        [
            (r.label, r.run_label, name, *(_interval(r.score(f"{metric}/{name}")) for metric in METRICS))
            for r in results
            for name in r.scores.classes
        ],
    )


def _times(results: Sequence[Result]) -> str:
    rows = []
    for result in results:
        model, whole, theirs = result.seconds
        printed = "" if theirs is None else f"{theirs:g} s"
        rows.append((result.label, result.run_label, result.scores.device, f"{model:.3g} s", f"{whole:.3g} s", printed))
    return markdown_table(f"Row | Run | Device | Model alone | File to label map | Printed ({SECONDS_DEVICE})", rows)


def _interval(score: Score) -> str:
    value = _number(score.value)
    return value if score.low is None else f"{value} ({score.low:.4f} to {score.high:.4f})"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
