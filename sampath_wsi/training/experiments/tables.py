"""Tables of an experiment, as rows: ours with intervals, ours computed as in the paper, and what the paper printed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sampath_wsi.metrics import METRICS
from sampath_wsi.training.experiments.paper import LABELS, SECONDS_DEVICE, SECONDS_PER_IMAGE, printed
from sampath_wsi.training.experiments.runs import Result

Row = dict[str, Any]


def scope_of(result: Result) -> str:
    """What Dice and IoU are taken of: the second of two classes (the gland), or the mean over all classes."""
    classes: list[str] = result.scores["classes"]
    return classes[-1] if len(classes) == 2 else "macro"


def main_score(result: Result, metric: str) -> dict[str, float | None]:
    """A metric of the gland, or its mean over the classes, with its interval."""
    scope = scope_of(result)
    return result.score(f"macro/{metric}" if scope == "macro" else f"{metric}/{scope}")


def table1(data_set: str, results: Sequence[Result]) -> list[Row]:
    """Table 1 on one data set: a row a run.

    ``dice``, ``iou`` and ``accuracy`` are ours, each with ``_low`` and ``_high`` (95 % bootstrap over images);
    ``paper_dice`` and ``paper_iou`` are the same predictions scored as the paper's columns were; ``printed_...`` stands
    in the paper, ``printed_iou_corrected`` follows from the printed Dice.
    """
    rows = []
    for result in results:
        row: Row = _identity(result) | {"scope": scope_of(result)}
        entries = {metric: main_score(result, metric) for metric in ("dice", "iou")}
        for name, entry in (entries | {"accuracy": result.score("accuracy")}).items():
            row |= {name: entry["value"], f"{name}_low": entry["low"], f"{name}_high": entry["high"]}
        row |= {f"paper_{name}": entry["value"] for name, entry in result.scores["as_in_the_paper"].items()}
        theirs = printed(result.run.row, data_set)
        row |= {"printed_dice": theirs.dice, "printed_iou": theirs.iou, "printed_iou_corrected": theirs.iou_corrected}
        row |= {"leakage": (result.scores["leakage"] or {}).get("severity")}
        rows.append(row)
    return rows


def class_table(results: Sequence[Result]) -> list[Row]:
    """Dice, IoU, precision and recall of every class, with intervals: a row a run and class."""
    rows = []
    for result in results:
        for name in result.scores["classes"]:
            row: Row = _identity(result) | {"class": name}
            for metric in METRICS:
                entry = result.score(f"{metric}/{name}")
                row |= {metric: entry["value"], f"{metric}_low": entry["low"], f"{metric}_high": entry["high"]}
            rows.append(row)
    return rows


def time_table(data_set: str, results: Sequence[Result]) -> list[Row]:
    """Seconds that an image takes: the model alone, and from file to label map, beside the paper's.

    An image is a sample of the prepared data, for BCSS a tile as in the paper, and not the field that tiles make up.
    """
    rows = []
    for result in results:
        seconds = result.scores["seconds_per_image"]
        samples = ((result.scores["leakage"] or {}).get("samples") or {}).get(result.scores["split"])
        share = result.scores["fields"] / samples if samples else 1.0
        theirs = SECONDS_PER_IMAGE.get((result.run.row, data_set))
        rows.append(
            _identity(result)
            | {
                "device": result.scores["device"],
                "model_s": seconds["model"] * share,
                "all_s": seconds["mean"] * share,
                "printed_s": theirs,
                "printed_device": SECONDS_DEVICE if theirs is not None else None,
            }
        )
    return rows


def sweep_table(results: Sequence[Result], own_weights: tuple[float, float]) -> list[Row]:
    """Figure 4: Dice over alpha (beta as in the recipe) and over beta (alpha as in the recipe).

    Parameters
    ----------
    own_weights
        The recipe's alpha and beta; the run with these is a point of both sweeps.
    """
    rows = []
    for parameter, own in zip(("alpha", "beta"), own_weights, strict=True):
        other = "beta" if parameter == "alpha" else "alpha"
        for result in results:
            if getattr(result.run, other) is None:
                value = getattr(result.run, parameter)
                entry = main_score(result, "dice")
                rows.append(
                    {
                        "split": result.split,
                        "parameter": parameter,
                        "value": own if value is None else value,
                        "seed": result.run.seed,
                        "images": result.scores["fields"],
                        "dice": entry["value"],
                        "dice_low": entry["low"],
                        "dice_high": entry["high"],
                        "paper_dice": result.scores["as_in_the_paper"]["dice"]["value"],
                    }
                )
    return sorted(rows, key=lambda row: (row["split"], row["parameter"], row["value"]))


def _identity(result: Result) -> Row:
    return {
        "row": result.run.row,
        "label": LABELS[result.run.row],
        "split": result.split,
        "seed": result.run.seed,
        "images": result.scores["fields"],
        "groups": result.scores["groups"],
    }
