"""The files that a test leaves: ``scores.json`` for people and tables, ``counts.csv`` to score any part of it again.

``counts.csv`` has a row a field: ``field``, ``group``, ``split``, and the field's confusion matrix, row by row:
``true_I_predicted_J`` = pixels of class I (1, 2, ...) that were given class J (0 = none). The sum of any rows is the
confusion matrix of those fields.

``scores.json``::

    {"model", "weights_sha256", "data", "split", "splits_file", "fields", "groups", "classes",
     "confusion": [[...]],                      row = true class, column 0 = predicted as none, column j = as class j
     "scores": {"dice/Gland": {"value", "low", "high", "group_low", "group_high"}, "macro/dice": ..., "accuracy": ...},
     "bootstrap": {"level", "resamples", "seed"},
     "as_in_the_paper": {"dice": {"value", "formula"}, "iou": ..., "iou_corrected": ... },
     "seconds_per_image": {"mean", "model"}, "device", "leakage", "options", "software"}

``low`` and ``high`` are the ends of the bootstrap interval over fields, ``group_low`` and ``group_high`` over groups;
they are null where there are fewer than two. ``seconds_per_image`` is measured without the first field, if there are
several: ``model`` is the model alone, ``mean`` everything from file to label map. A value that the data do not define
is left out of ``scores`` and null in ``as_in_the_paper``.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sampath_wsi.errors import DataError
from sampath_wsi.files import write_table
from sampath_wsi.metrics import ConfusionMatrix
from sampath_wsi.training.scoring.bootstrap import LEVEL, RESAMPLES, bootstrap
from sampath_wsi.training.scoring.paper_metrics import Rule, as_in_the_paper

SCORES_NAME, COUNTS_NAME = "scores.json", "counts.csv"
SEED = 0
_FIRST_COLUMNS = ("field", "group", "split")


@dataclass(frozen=True)
class FieldCounts:
    """Confusion matrices of the fields of a test."""

    fields: tuple[str, ...]
    groups: tuple[str, ...]
    splits: tuple[str, ...]
    counts: NDArray[np.int64]
    """``(n_fields, n_classes, n_classes + 1)``."""

    @property
    def total(self) -> ConfusionMatrix:
        return ConfusionMatrix(self.counts.sum(0))


def summary_of(counts: FieldCounts, class_names: Sequence[str], rule: Rule) -> dict[str, Any]:
    """What ``scores.json`` says that follows from the counts alone: from ``fields`` to ``as_in_the_paper``."""
    over_fields = bootstrap(counts.counts, class_names, seed=SEED)
    over_groups = bootstrap(counts.counts, class_names, groups=counts.groups, seed=SEED)
    scores = {}
    for name, value in counts.total.scores(class_names).items():
        low, high = over_fields.get(name, (None, None))
        group_low, group_high = over_groups.get(name, (None, None))
        scores[name] = {"value": value, "low": low, "high": high, "group_low": group_low, "group_high": group_high}
    return {
        "fields": len(counts.fields),
        "groups": len(set(counts.groups)),
        "classes": list(class_names),
        "confusion": counts.total.counts.tolist(),
        "scores": scores,
        "bootstrap": {"level": LEVEL, "resamples": RESAMPLES, "seed": SEED},
        "as_in_the_paper": as_in_the_paper(counts.total, rule),
    }


def write_counts(path: Path, counts: FieldCounts) -> None:
    """Write ``counts.csv``."""
    _, n_classes, n_columns = counts.counts.shape
    columns = (*_FIRST_COLUMNS, *_count_columns(n_classes, n_columns))
    cells = counts.counts.reshape(len(counts.fields), -1).tolist()
    rows = zip(counts.fields, counts.groups, counts.splits, cells, strict=True)
    write_table(path, [dict(zip(columns, (*names, *row), strict=True)) for *names, row in rows])


def read_counts(path: Path) -> FieldCounts:
    """Read ``counts.csv``.

    Raises
    ------
    DataError
        If it is missing or not such a file.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({type(error).__name__})", "Run the test again.") from error
    n_classes = int((len(header) - len(_FIRST_COLUMNS)) ** 0.5)
    if header != [*_FIRST_COLUMNS, *_count_columns(n_classes, n_classes + 1)] or not rows:
        raise DataError(f"{path} holds no counts of a test", "Run the test again.")
    fields, groups, splits, *cells = zip(*rows, strict=True)
    counts = np.array(cells, np.int64).T.reshape(len(rows), n_classes, n_classes + 1)
    return FieldCounts(fields, groups, splits, counts)


def _count_columns(n_classes: int, n_columns: int) -> list[str]:
    return [f"true_{i + 1}_predicted_{j}" for i in range(n_classes) for j in range(n_columns)]
