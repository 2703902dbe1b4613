"""Figures of an experiment: Table 1 as bars, Figure 4 as curves. Colours of Okabe and Ito, told apart by shape too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.figure import Figure

from sampath_wsi.files import written_aside
from sampath_wsi.training.experiments.paper import BEST_WEIGHTS, TITLES
from sampath_wsi.training.experiments.tables import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")
_MARKERS = ("o", "s", "^", "v")
_PAPER = "#D55E00"
_LABEL = {"alpha": r"$\alpha$, share of the focal loss", "beta": r"$\beta$, weight of the IoU loss"}
_TEXT: Any = {"font.size": 10, "svg.fonttype": "none", "svg.hashsalt": "sampath-wsi"}


def draw_table1(data_set: str, rows: Sequence[Row], stem: Path, *, note: str = "") -> None:
    """Bars of the Dice of every row, with intervals and seeds, and the paper's values; as PNG and SVG.

    Parameters
    ----------
    rows
        Of :func:`sampath_wsi.training.experiments.tables.table1`.
    stem
        Path without suffix.
    note
        Stands under the title.
    """
    labels = list(dict.fromkeys(row["label"] for row in rows))
    runs = list(dict.fromkeys((row["split"], row["seed"]) for row in rows if row["split"])) or [("", None)]
    with matplotlib.rc_context(_TEXT):
        figure = Figure(figsize=(7.5, 1.6 + 0.55 * len(labels) + 0.12 * len(labels) * len(runs)), layout="constrained")
        axes = figure.add_subplot()
        height = 0.8 / len(runs)
        for k, run in enumerate(runs):
            name = f"{run[0]}, seed {run[1]}" if run[0] else "measured"
            # What was not trained belongs to every run.
            shown = [row for row in rows if (row["split"], row["seed"]) == run or not row["split"]]
            at = [labels.index(row["label"]) + (k - (len(runs) - 1) / 2) * height for row in shown]
            axes.barh(at, [row["dice"] or 0 for row in shown], 0.9 * height, color=_COLOURS[k % 4], label=name)
            _whiskers(axes, shown, at, vertical=False)
            if rows[0]["scope"] == "macro":  # There the paper's "Dice" is another number: the accuracy.
                alike = [row["paper_dice"] for row in shown]
                axes.scatter(alike, at, marker="x", color=_PAPER, zorder=3, label="" if k else "ours, as in the paper")
        _paper_values(axes, rows, labels)
        axes.set_yticks(range(len(labels)), labels)
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.set_xlabel("Dice" + (" of the gland" if rows[0]["scope"] != "macro" else ", mean of the classes"))
        axes.set_title(f"{TITLES[data_set]}: Table 1, with 95 % intervals{note and chr(10)}{note}")
        figure.legend(loc="outside lower center", ncols=3, frameon=False)
        _save(figure, stem)


def draw_sweep(data_set: str, rows: Sequence[Row], stem: Path, *, note: str = "") -> None:
    """Figure 4: Dice over alpha and over beta, the paper's best values marked; as PNG and SVG.

    Parameters
    ----------
    rows
        Of :func:`sampath_wsi.training.experiments.tables.sweep_table`.
    """
    with matplotlib.rc_context(_TEXT):
        figure = Figure(figsize=(8, 3.8), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for panel, parameter in zip(panels, ("alpha", "beta"), strict=True):
            points = [row for row in rows if row["parameter"] == parameter]
            for k, split in enumerate(dict.fromkeys(row["split"] for row in points)):
                shown = [row for row in points if row["split"] == split and row["dice"] is not None]
                at = [row["value"] for row in shown]
                panel.plot(
                    at, [row["dice"] for row in shown], f"{_MARKERS[k % 4]}-", color=_COLOURS[k % 4], label=split
                )
                _whiskers(panel, shown, at, vertical=True)
            if data_set in BEST_WEIGHTS:
                best = BEST_WEIGHTS[data_set][parameter == "beta"]
                panel.axvline(best, color=_PAPER, linestyle="--", label=f"best in the paper: {best:g}")
            panel.set_xlabel(_LABEL[parameter])
            panel.legend(frameon=False)
        panels[0].set_ylabel("Dice")
        figure.suptitle(f"{TITLES[data_set]}: weights of the loss, with 95 % intervals{note and chr(10)}{note}")
        _save(figure, stem)


def _whiskers(axes: Axes, rows: Sequence[Row], at: Sequence[float], *, vertical: bool) -> None:
    for row, place in zip(rows, at, strict=True):
        if row["dice_low"] is not None:
            ends, places = [row["dice_low"], row["dice_high"]], [place, place]
            axes.plot(*((places, ends) if vertical else (ends, places)), color="black", linewidth=1.2)


def _paper_values(axes: Axes, rows: Sequence[Row], labels: Sequence[str]) -> None:
    found = {row["label"]: row["printed_dice"] for row in rows if row["printed_dice"] is not None}
    if found:
        at = [labels.index(label) for label in found]
        axes.scatter(list(found.values()), at, marker="D", color=_PAPER, zorder=3, label="printed in the paper")


def _save(figure: Figure, stem: Path) -> None:
    for suffix, options in ((".png", {"dpi": 160}), (".svg", {"metadata": {"Date": None}})):
        with written_aside(stem.with_name(stem.name + suffix)) as aside:
            figure.savefig(aside, **options)
