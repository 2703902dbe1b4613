"""Results of runs as tables: our scores with intervals, the same as in the paper, and the paper's printed numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from sampath_wsi.errors import DataError
from sampath_wsi.files import write_table
from sampath_wsi.metrics import METRICS
from sampath_wsi.training.experiments.plan import SPLITS, Run
from sampath_wsi.training.scoring.paper import LABELS, SECONDS_DEVICE, SECONDS_PER_IMAGE, TITLES, Printed, printed
from sampath_wsi.training.scoring.scores import Score, Scores

Row = dict[str, Score | str | float | None]
"""A row of a table, by column."""


@dataclass(frozen=True)
class Result:
    """A tested run."""

    run: Run
    data_set: str
    split: str
    """Name of the split into training and validation data; empty for a run that was not trained."""
    scores: Scores

    @property
    def label(self) -> str:
        """The paper's name of the row."""
        return LABELS[self.run.row]

    @property
    def run_label(self) -> str:
        """Description of the training; empty for a run that was not trained."""
        return f"{self.split}, seed {self.run.seed}" if self.split else ""

    @property
    def scope(self) -> str:
        """The class of Dice and IoU: the second of two (the gland), else ``macro``, the mean over all classes."""
        return self.scores.classes[-1] if len(self.scores.classes) == 2 else "macro"

    @property
    def dice(self) -> Score:
        return self._of_scope("dice")

    @property
    def iou(self) -> Score:
        return self._of_scope("iou")

    def _of_scope(self, metric: str) -> Score:
        return self.score(f"macro/{metric}" if self.scope == "macro" else f"{metric}/{self.scope}")

    def score(self, name: str) -> Score:
        """Return a score by name; one without a value if it is not defined."""
        return self.scores.scores.get(name, Score())

    def paper(self, name: str) -> float | None:
        """Return a column as the paper computed it."""
        found = self.scores.as_in_the_paper.get(name)
        return None if found is None else found.value

    @property
    def printed(self) -> Printed:
        """Return the numbers that the paper printed."""
        return printed(self.run.row, self.data_set)


@dataclass(frozen=True)
class SweepPoint:
    """A point of Figure 4: a row of its table."""

    split: str
    parameter: str
    """The weight that varies, ``alpha`` or ``beta``; the other one is the recipe's."""
    value: float
    seed: int | None
    images: int
    dice: Score
    paper_dice: float | None


def read_results(data_set: str, paths: Iterable[Path]) -> tuple[Result, ...]:
    """Read the scores of runs that lie where the workflow puts them.

    Parameters
    ----------
    paths
        Files ``SPLIT/test/RUN/scores.json``, or ``vanilla/RUN/scores.json`` of runs that were not trained.

    Returns
    -------
    The results in the order of Table 1.

    Raises
    ------
    DataError
        If there is no such data set or no file, or one is missing, is not one of scores, or its folders are not named
        like a run and a way of splitting.
    """
    if data_set not in TITLES:
        raise DataError(f"there is no experiment {data_set!r}", f"Choose one of {', '.join(TITLES)}.")
    results = []
    for path in paths:
        run = Run.parse(path.parent.name)
        scores = Scores.read(path)
        split = "" if run.prompted else path.absolute().parents[2].name
        if split and split not in SPLITS:
            raise DataError(f"{path}: {split!r} is no way of splitting", f"Known are {', '.join(SPLITS)}.")
        results.append(Result(run, data_set, split, scores))
    if not results:
        raise DataError("there are no scores to report", "Name the scores.json of at least one run.")
    rows, splits = list(LABELS), ["", *SPLITS]
    return tuple(sorted(results, key=lambda r: (rows.index(r.run.row), splits.index(r.split), r.run.seed or 0)))


class Leakage(BaseModel):
    """The part of ``leakage.json`` (written by ``prepare check``) that reports show."""

    summary: str


def table1(results: Sequence[Result]) -> list[Row]:
    """Return Table 1 on one data set: a row a run.

    ``dice``, ``iou`` and ``accuracy`` are ours (95 % bootstrap over images); ``paper_dice`` and ``paper_iou`` are the
    same predictions scored as the paper's columns were; ``printed_...`` stands in the paper, ``printed_iou_corrected``
    follows from the printed Dice.
    """
    return [
        {
            **_identity(result),
            "scope": result.scope,
            "dice": result.dice,
            "iou": result.iou,
            "accuracy": result.score("accuracy"),
            **{f"paper_{name}": result.paper(name) for name in result.scores.as_in_the_paper},
            **{f"printed_{name}": value for name, value in result.printed._asdict().items()},
            "leakage": result.scores.leakage.get("severity"),
        }
        for result in results
    ]


def class_table(results: Sequence[Result]) -> list[Row]:
    """Return Dice, IoU, precision and recall of every class: a row a run and class."""
    return [
        {**_identity(result), "class": name, **{metric: result.score(f"{metric}/{name}") for metric in METRICS}}
        for result in results
        for name in result.scores.classes
    ]


def time_table(results: Sequence[Result]) -> list[Row]:
    """Return the seconds that an image takes, the model alone and from file to label map: a row a run.

    An image is a sample of the prepared data, for BCSS a tile as in the paper, and not the field of many tiles.
    """
    rows = []
    for result in results:
        samples = result.scores.leakage.get("samples", {}).get(result.scores.split)
        share = result.scores.fields / samples if samples else 1.0
        seconds = result.scores.seconds_per_image
        row = _identity(result) | {"device": result.scores.device}
        row |= {"model_s": seconds.model * share, "all_s": seconds.mean * share}
        theirs = SECONDS_PER_IMAGE.get((result.run.row, result.data_set))
        rows.append(row | {"printed_s": theirs, "printed_device": None if theirs is None else SECONDS_DEVICE})
    return rows


def sweep_points(results: Sequence[Result], own_weights: tuple[float, float]) -> list[SweepPoint]:
    """Return the points of Figure 4: over alpha (beta as in the recipe) and over beta (alpha as in the recipe).

    Parameters
    ----------
    own_weights
        The recipe's alpha and beta; the run with these is a point of both sweeps.
    """
    points = []
    for result in results:
        run, images, paper_dice = result.run, result.scores.fields, result.paper("dice")
        weights = {"alpha": (run.alpha, run.beta), "beta": (run.beta, run.alpha)}
        for own, (parameter, (value, other)) in zip(own_weights, weights.items(), strict=True):
            if other is None:
                at = own if value is None else value
                points.append(SweepPoint(result.split, parameter, at, run.seed, images, result.dice, paper_dice))
    return sorted(points, key=lambda point: (point.split, point.parameter, point.value))


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write a table; a score becomes three columns: its name, and the same with ``_low`` and ``_high``."""
    flat: list[Row] = []
    for row in rows:
        flat.append({})
        for name, cell in row.items():
            if isinstance(cell, Score):
                flat[-1] |= {name: cell.value, f"{name}_low": cell.low, f"{name}_high": cell.high}
            else:
                flat[-1][name] = cell
    write_table(path, flat)


def _identity(result: Result) -> Row:
    return {
        "row": result.run.row,
        "label": result.label,
        "split": result.split,
        "seed": result.run.seed,
        "images": result.scores.fields,
        "groups": result.scores.groups,
    }
