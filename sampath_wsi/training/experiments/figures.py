"""Figures of an experiment: Table 1 as bars, Figure 4 as curves. Colours of Okabe and Ito, told apart by shape too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.figure import Figure

from sampath_wsi.files import written_aside
from sampath_wsi.training.experiments.tables import Result, SweepPoint
from sampath_wsi.training.scoring.paper import BEST_WEIGHTS, TITLES
from sampath_wsi.training.scoring.scores import Score

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")
_MARKERS = ("o", "s", "^", "v")
_PAPER = "#D55E00"
_LABEL = {"alpha": r"$\alpha$, share of the focal loss", "beta": r"$\beta$, weight of the IoU loss"}
_TEXT: Any = {"font.size": 10, "svg.fonttype": "none", "svg.hashsalt": "sampath-wsi"}


def draw_table1(results: Sequence[Result], stem: Path, *, note: str = "") -> None:
    """Draw bars of the Dice of every run of a data set, with intervals, and the paper's values; as PNG and SVG.

    Parameters
    ----------
    stem
        Path without suffix.
    note
        Stands under the title.
    """
    labels = list(dict.fromkeys(result.label for result in results))
    runs = list(dict.fromkeys(result.run_label for result in results if result.split)) or [""]
    macro = results[0].scope == "macro"
    with matplotlib.rc_context(_TEXT):
        figure = Figure(figsize=(7.5, 1.6 + 0.55 * len(labels) + 0.12 * len(labels) * len(runs)), layout="constrained")
        axes = figure.add_subplot()
        height = 0.8 / len(runs)
        for k, run in enumerate(runs):
            # Rows without training belong to every run.
            shown = [result for result in results if result.run_label in ("", run)]
            at = [labels.index(result.label) + (k - (len(runs) - 1) / 2) * height for result in shown]
            dice = [result.dice.value or 0 for result in shown]
            axes.barh(at, dice, 0.9 * height, color=_COLOURS[k % 4], label=run or "measured")
            _draw_intervals(axes, [result.dice for result in shown], at, vertical=False)
            if macro:  # There the paper's "Dice" is another number: the accuracy.
                alike: Any = [result.paper("dice") for result in shown]
                axes.scatter(alike, at, marker="x", color=_PAPER, zorder=3, label="" if k else "ours, as in the paper")
        found = {result.label: result.printed.dice for result in results if result.printed.dice is not None}
        if found:
            at = [labels.index(label) for label in found]
            axes.scatter(list(found.values()), at, marker="D", color=_PAPER, zorder=3, label="printed in the paper")
        axes.set_yticks(range(len(labels)), labels)
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.set_xlabel("Dice, mean of the classes" if macro else "Dice of the gland")
        axes.set_title(_title(results[0].data_set, "Table 1, with 95 % intervals", note))
        figure.legend(loc="outside lower center", ncols=3, frameon=False)
        _save(figure, stem)


def draw_sweep(data_set: str, points: Sequence[SweepPoint], stem: Path, *, note: str = "") -> None:
    """Draw Figure 4: Dice over alpha and over beta, the paper's best values marked; as PNG and SVG.

    Parameters
    ----------
    stem, note
        See :func:`draw_table1`.
    """
    with matplotlib.rc_context(_TEXT):
        figure = Figure(figsize=(8, 3.8), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for panel, parameter in zip(panels, _LABEL, strict=True):
            of_parameter = [point for point in points if point.parameter == parameter]
            for k, split in enumerate(dict.fromkeys(point.split for point in of_parameter)):
                shown = [point for point in of_parameter if point.split == split and point.dice.value is not None]
                at, dice = [point.value for point in shown], [point.dice for point in shown]
                line = f"{_MARKERS[k % 4]}-"
                panel.plot(at, [score.value for score in dice], line, color=_COLOURS[k % 4], label=split)
                _draw_intervals(panel, dice, at, vertical=True)
            if data_set in BEST_WEIGHTS:
                best = BEST_WEIGHTS[data_set][parameter == "beta"]
                panel.axvline(best, color=_PAPER, linestyle="--", label=f"best in the paper: {best:g}")
            panel.set_xlabel(_LABEL[parameter])
            panel.legend(frameon=False)
        panels[0].set_ylabel("Dice")
        figure.suptitle(_title(data_set, "weights of the loss, with 95 % intervals", note))
        _save(figure, stem)


def _draw_intervals(axes: Axes, scores: Sequence[Score], at: Sequence[float], *, vertical: bool) -> None:
    for score, place in zip(scores, at, strict=True):
        if score.low is not None and score.high is not None:
            ends, places = [score.low, score.high], [place, place]
            axes.plot(*((places, ends) if vertical else (ends, places)), color="black", linewidth=1.2)


def _title(data_set: str, text: str, note: str) -> str:
    return f"{TITLES[data_set]}: {text}{note and chr(10)}{note}"


def _save(figure: Figure, stem: Path) -> None:
    for suffix, options in ((".png", {"dpi": 160}), (".svg", {"metadata": {"Date": None}})):
        with written_aside(stem.with_name(stem.name + suffix)) as aside:
            figure.savefig(aside, **options)
