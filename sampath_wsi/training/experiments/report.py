"""The report of an experiment: CSV for programs, Markdown and figures for people."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from sampath_wsi.files import written_aside
from sampath_wsi.training.experiments.figures import draw_sweep, draw_table1
from sampath_wsi.training.experiments.plan import SPLITS
from sampath_wsi.training.experiments.tables import (
    Leakage,
    Result,
    Row,
    SweepPoint,
    class_table,
    read_results,
    sweep_points,
    table1,
    time_table,
    write_csv,
)
from sampath_wsi.training.scoring.paper import BEST_WEIGHTS, SECONDS_DEVICE, TITLES
from sampath_wsi.training.scoring.scores import read_model

_SMOKE_NOTE = "smoke run on synthetic stand-ins: means nothing"
_SMOKE_TEXT = "**Smoke run on synthetic stand-ins: these numbers mean nothing.**"
_TABLE1 = (
    "Row | Seed | Images | Dice (95 %) | IoU (95 %) | Dice as in the paper | IoU as in the paper | Dice printed | "
    "IoU printed | IoU printed, corrected",
    "label seed images dice iou paper_dice paper_iou printed_dice printed_iou printed_iou_corrected",
)
_CLASSES = "Row | Run | Class | Dice | IoU | Precision | Recall", "label run class dice iou precision recall"
_TIMES = (
    f"Row | Run | Device | Model alone | File to label map | Printed ({SECONDS_DEVICE})",
    "label run device model_s all_s printed_s",
)
_SWEEP = "Split | Weight | Value | Dice (95 %) | Dice as in the paper", "split parameter value dice paper_dice"
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
    lines = {path.parent.name: read_model(Leakage, path, "Run `prepare check` again.").summary for path in leakage}
    write_csv(out / "table1.csv", table1(results))
    write_csv(out / "classes.csv", class_table(results))
    write_csv(out / "times.csv", time_table(results))
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
    write_csv(out / "sweep.csv", [vars(point) for point in points])
    draw_sweep(data_set, points, out / "sweep", note=_SMOKE_NOTE if smoke else "")
    _write_text(out / "sweep.md", _sweep_parts(data_set, points, own_weights), smoke=smoke)


def _write_text(path: Path, parts: Sequence[str], *, smoke: bool) -> None:
    title, *rest = parts
    with written_aside(path) as aside:
        text = "\n\n".join(part for part in (title, _SMOKE_TEXT if smoke else "", *rest) if part)
        aside.write_text(f"{text}\n", encoding="utf-8")


def _report_parts(results: Sequence[Result], leakage: Mapping[str, str]) -> list[str]:
    """Return Table 1, scores of the classes, prediction times and leakage of one data set, as paragraphs."""
    rows, splits = table1(results), {result.split for result in results}
    parts = [f"# {TITLES[results[0].data_set]}: the experiments of the paper"]
    for split in [split for split in SPLITS if split in splits]:
        parts += [f"## Table 1, split `{split}`", f"{_CAPTION[split]}. {leakage.get(split, '')}".strip()]
        parts.append(markdown_table(*_TABLE1, [row for row in rows if row["split"] in ("", split)]))
        parts.append(_seeds([result for result in results if result.split == split]))
    if splits == {""}:
        parts += ["## Table 1", markdown_table(*_TABLE1, rows)]
    parts += [_formulas(results), "## Classes", markdown_table(*_CLASSES, class_table(results))]
    return [*parts, "## Prediction time", markdown_table(*_TIMES, time_table(results))]


def _sweep_parts(data_set: str, points: Sequence[SweepPoint], own_weights: tuple[float, float]) -> list[str]:
    """Return Figure 4 as a table, as paragraphs."""
    best = BEST_WEIGHTS.get(data_set)
    return [
        f"# {TITLES[data_set]}: weights of the loss (Figure 4)",
        "alpha: share of the focal loss against Dice; beta: weight of the IoU loss. Where one varies, the other is the "
        f"recipe's (alpha {own_weights[0]:g}, beta {own_weights[1]:g})."
        + (f" Best in the paper: alpha {best[0]:g}, beta {best[1]:g}." if best else ""),
        markdown_table(*_SWEEP, [vars(point) for point in points]),
    ]


def markdown_table(titles: str, columns: str, rows: Sequence[Row]) -> str:
    """Return a Markdown table; a bar inside a cell is escaped.

    Parameters
    ----------
    titles, columns
        Titles between bars, and names of the rows' columns between spaces; ``run`` says how a model was trained.
    """
    cells = [[_text(row, name).replace("|", r"\|") for name in columns.split()] for row in rows]
    header = titles.split(" | ")
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *cells))


def _text(row: Row, name: str) -> str:
    cell = row.get(name)
    if name == "run":
        return f"{row['split']}, seed {row['seed']}" if row["split"] else ""
    if isinstance(cell, float):
        return f"{cell:.3g} s" if name.endswith("_s") else f"{cell:g}" if name == "value" else f"{cell:.4f}"
    return "" if cell is None else str(cell)


def _seeds(results: Sequence[Result]) -> str:
    """Return mean and spread of the Dice over seeds, if there are several."""
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
