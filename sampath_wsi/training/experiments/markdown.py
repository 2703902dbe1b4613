"""The tables of an experiment for people: Markdown with captions that say what every column is."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from sampath_wsi.training.experiments.paper import BEST_WEIGHTS, SECONDS_DEVICE, TITLES
from sampath_wsi.training.experiments.runs import SPLITS, Result
from sampath_wsi.training.experiments.tables import Row, class_table, sweep_table, table1, time_table

_CAPTION = {
    "official": "validation: whole groups of the official training split",
    "disjoint": "no group of the test split in training or validation",
    "authors": "the folds of the paper's authors",
}


def report_text(data_set: str, results: Sequence[Result], leakage: Mapping[str, str], *, smoke: bool) -> str:
    """Table 1, scores of the classes, prediction times and leakage of one data set.

    Parameters
    ----------
    leakage
        One line on each way of splitting.
    smoke
        Whether to say above all that the numbers mean nothing.
    """
    parts = [f"# {TITLES[data_set]}: the experiments of the paper"]
    if smoke:
        parts.append("**Smoke run on synthetic stand-ins: these numbers mean nothing.**")
    rows = table1(data_set, results)
    vanilla = [row for row in rows if not row["split"]]
    for split in [split for split in SPLITS if any(row["split"] == split for row in rows)] or [""]:
        trained = [row for row in rows if row["split"] == split and split]
        title = f"## Table 1, split `{split}`" if split else "## Table 1"
        parts += [title, f"{_CAPTION[split]}. {leakage.get(split, '')}".strip() if split else ""]
        parts.append(_table1(vanilla + trained))
        parts += [line for line in (_seeds(trained),) if line]
    parts.append(_formulas(results))
    parts += ["## Classes", _classes(class_table(results)), "## Prediction time", _times(time_table(data_set, results))]
    return "\n\n".join(part for part in parts if part) + "\n"


def sweep_text(data_set: str, results: Sequence[Result], own_weights: tuple[float, float], *, smoke: bool) -> str:
    """Figure 4 as a table."""
    parts = [f"# {TITLES[data_set]}: weights of the loss (Figure 4)"]
    if smoke:
        parts.append("**Smoke run on synthetic stand-ins: these numbers mean nothing.**")
    best = BEST_WEIGHTS.get(data_set)
    parts.append(
        "alpha: share of the focal loss against Dice; beta: weight of the IoU loss. Where one varies, the other is the "
        f"recipe's (alpha {own_weights[0]:g}, beta {own_weights[1]:g})."
        + (f" Best in the paper: alpha {best[0]:g}, beta {best[1]:g}." if best else "")
    )
    rows = sweep_table(results, own_weights)
    cells = [
        (row["split"], row["parameter"], f"{row['value']:g}", _interval(row, "dice"), _number(row["paper_dice"]))
        for row in rows
    ]
    parts.append(markdown_table(("Split", "Weight", "Value", "Dice (95 %)", "Dice as in the paper"), cells))
    return "\n\n".join(parts) + "\n"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; a bar inside a cell is escaped."""
    escaped = [[cell.replace("|", r"\|") for cell in row] for row in (header, *rows)]
    lines = [" | ".join(row) for row in (escaped[0], ["---"] * len(header), *escaped[1:])]
    return "\n".join(f"| {line} |" for line in lines)


def _table1(rows: Sequence[Row]) -> str:
    header = (
        "Row",
        "Seed",
        "Images",
        "Dice (95 %)",
        "IoU (95 %)",
        "Dice as in the paper",
        "IoU as in the paper",
        "Dice printed",
        "IoU printed",
        "IoU printed, corrected",
    )
    cells = [
        (
            row["label"],
            "" if row["seed"] is None else str(row["seed"]),
            str(row["images"]),
            _interval(row, "dice"),
            _interval(row, "iou"),
            *(_number(row.get(name)) for name in ("paper_dice", "paper_iou")),
            *(_number(row[f"printed_{name}"]) for name in ("dice", "iou", "iou_corrected")),
        )
        for row in rows
    ]
    return markdown_table(header, cells)


def _seeds(rows: Sequence[Row]) -> str:
    """Mean and spread of the Dice over seeds, where there are several."""
    lines = []
    for label in dict.fromkeys(row["label"] for row in rows):
        values = [row["dice"] for row in rows if row["label"] == label and row["dice"] is not None]
        if len(values) > 1:
            spread = f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}"
            lines.append(f"- {label}: Dice {spread} (mean and standard deviation over {len(values)} seeds)")
    return "\n".join(lines)


def _formulas(results: Sequence[Result]) -> str:
    lines = ["Intervals: 95 %, bootstrap over images. As in the paper:"]
    for prompted, name in ((True, "vanilla SAM"), (False, "trained rows")):
        found = next((r.scores["as_in_the_paper"] for r in results if r.run.prompted is prompted), None)
        if found is not None:
            formulas = "; ".join(f"{key.replace('_', ' ')}: {entry['formula']}" for key, entry in found.items())
            lines.append(f"- {name}: {formulas}")
    return "\n".join(lines)


def _classes(rows: Sequence[Row]) -> str:
    metrics = ("dice", "iou", "precision", "recall")
    cells = [(row["label"], _run(row), row["class"], *(_interval(row, name) for name in metrics)) for row in rows]
    return markdown_table(("Row", "Run", "Class", "Dice", "IoU", "Precision", "Recall"), cells)


def _times(rows: Sequence[Row]) -> str:
    cells = [
        (row["label"], _run(row), row["device"], f"{row['model_s']:.3g} s", f"{row['all_s']:.3g} s", _seconds(row))
        for row in rows
    ]
    header = ("Row", "Run", "Device", "Model alone", "File to label map", f"Printed ({SECONDS_DEVICE})")
    return markdown_table(header, cells)


def _run(row: Row) -> str:
    return f"{row['split']}, seed {row['seed']}" if row["split"] else ""


def _seconds(row: Row) -> str:
    return "" if row["printed_s"] is None else f"{row['printed_s']:g} s"


def _interval(row: Mapping[str, Any], name: str) -> str:
    if row[f"{name}_low"] is None:
        return _number(row[name])
    return f"{_number(row[name])} ({row[f'{name}_low']:.4f} to {row[f'{name}_high']:.4f})"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
