"""The files of a test: ``scores.json`` for people and tables, ``counts.csv`` to score any subset again.

``counts.csv`` has a row a field: ``field``, ``group``, ``split``, and the field's confusion matrix, row by row:
``true_I_predicted_J`` = pixels of class I (1, 2, ...) that were given class J (0 = none). The sum of any rows is the
confusion matrix of those fields. ``scores.json`` is :class:`Scores`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from pydantic import BaseModel, ValidationError

from sampath_wsi.errors import DataError
from sampath_wsi.files import write_table
from sampath_wsi.metrics import ConfusionMatrix, Counts, bootstrap
from sampath_wsi.training.scoring.paper import PaperScore

if TYPE_CHECKING:
    from sampath_wsi.training.scoring.fields import Field

SCORES_NAME, COUNTS_NAME = "scores.json", "counts.csv"
SEED = 0

_Model = TypeVar("_Model", bound=BaseModel)
Usage = dict[str, int | float | str | None]
"""Facts of a model's use, by name."""


class Score(BaseModel):
    """A score with its bootstrap intervals over fields and over groups; None where there are fewer than two."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    group_low: float | None = None
    group_high: float | None = None

    def __str__(self) -> str:
        """Return value and interval over fields for people; nothing if it is not defined."""
        interval = "" if self.low is None else f" ({self.low:.4f} to {self.high:.4f})"
        return "" if self.value is None else f"{self.value:.4f}{interval}"


class Seconds(BaseModel):
    """Mean seconds a field, without the first one if there are several."""

    mean: float
    """From file to label map."""
    model: float
    """The model alone."""


class Scores(BaseModel):
    """A test of a model on a split of prepared data."""

    model: str
    weights_sha256: str
    data: str
    split: str
    splits_file: str | None
    fields: int
    groups: int
    classes: list[str]
    confusion: list[list[int]]
    """Row = true class, column 0 = predicted as none, column j = as class j."""
    scores: dict[str, Score]
    """Scores by name, as :meth:`sampath_wsi.metrics.ConfusionMatrix.scores`; undefined ones are left out."""
    bootstrap: dict[str, int | float]
    """``level``, ``resamples`` and ``seed``."""
    as_in_the_paper: dict[str, PaperScore]
    """``dice``, ``iou`` and for glands ``iou_corrected``, see :mod:`sampath_wsi.training.scoring.paper`."""
    seconds_per_image: Seconds
    device: str
    leakage: dict[str, Any]
    """See :meth:`sampath_wsi.training.data.leakage.LeakageReport.to_json`."""
    options: Usage
    software: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> Scores:
        """Read ``scores.json``; DataError if it cannot be read, or lacks something."""
        return read_model(cls, path, "Run the test again.")


def read_model(model: type[_Model], path: Path, remedy: str) -> _Model:
    """Read a JSON file.

    Raises
    ------
    DataError
        If it cannot be read, or lacks something; with the remedy.
    """
    try:
        return model.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        found = error.errors() if isinstance(error, ValidationError) else []
        missing = [str(problem["loc"][0]) for problem in found if problem["type"] == "missing"]
        what = f"does not say {min(missing)}" if missing else f"cannot be read ({type(error).__name__})"
        raise DataError(f"{path} {what}", remedy) from error


def scores_of(counts: Counts, groups: Sequence[str], class_names: Sequence[str]) -> dict[str, Score]:
    """Return all scores of the sum of fields, with intervals.

    Parameters
    ----------
    counts
        Their confusion matrices, ``(n_fields, n_classes, n_classes + 1)``.
    groups
        The group of each field.
    """
    over_fields = bootstrap(counts, class_names, seed=SEED)
    over_groups = bootstrap(counts, class_names, groups=groups, seed=SEED)
    found = {}
    for name, value in ConfusionMatrix(counts.sum(0)).scores(class_names).items():
        low, high = over_fields.get(name, (None, None))
        group_low, group_high = over_groups.get(name, (None, None))
        found[name] = Score(value=value, low=low, high=high, group_low=group_low, group_high=group_high)
    return found


def write_counts(path: Path, fields: Sequence[Field], counts: Counts) -> None:
    """Write ``counts.csv``; ``counts`` as for :func:`scores_of`."""
    rows: list[dict[str, object]] = []
    for field, matrix in zip(fields, counts, strict=True):
        cells = {f"true_{i + 1}_predicted_{j}": int(matrix[i, j]) for i, j in np.ndindex(matrix.shape)}
        rows.append({"field": field.name, "group": field.group, "split": field.split, **cells})
    write_table(path, rows)
