"""Every score from one confusion matrix.

With true positives TP, false positives FP and false negatives FN of a class, counted in pixels:

- Dice = 2 TP / (2 TP + FP + FN), IoU = TP / (TP + FP + FN)
- precision = TP / (TP + FP), recall = TP / (TP + FN)
- macro = mean over the classes that occur in the truth; one of them that is never predicted has precision 0
- micro = the same formula on the sums over all classes
- accuracy = share of labelled pixels that are right

The functions take the counts of one matrix, ``(n_classes, n_classes + 1)``, or of many, with further axes in front.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

METRICS = ("dice", "iou", "precision", "recall")

Counts = NDArray[np.int64] | NDArray[np.float64]
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class ConfusionMatrix:
    """Pixel counts: row = true class, column 0 = predicted as no class, column j + 1 = predicted as class j.

    Matrices of images, tiles or slides of the same classes are added with ``+``.
    """

    counts: NDArray[np.int64]
    """``(n_classes, n_classes + 1)``."""

    @classmethod
    def empty(cls, n_classes: int) -> ConfusionMatrix:
        return cls(np.zeros((n_classes, n_classes + 1), np.int64))

    @classmethod
    def of(cls, truth: NDArray[np.integer], prediction: NDArray[np.integer], n_classes: int) -> ConfusionMatrix:
        """Count two label maps of one shape: 0 = no class, i + 1 = class i.

        Pixels without a class in the truth are left out; pixels without a class in the prediction are misses.

        Raises
        ------
        ValueError
            If the shapes differ or a label is not 0 to ``n_classes``.
        """
        if truth.shape != prediction.shape:
            raise ValueError(f"truth {truth.shape} and prediction {prediction.shape} differ in shape")
        for name, labels in (("truth", truth), ("prediction", prediction)):
            if labels.size and (labels.min() < 0 or labels.max() > n_classes):
                raise ValueError(f"labels of the {name} must be 0 to {n_classes}")
        index = truth.astype(np.int64) * (n_classes + 1) + prediction
        counts = np.bincount(index.ravel(), minlength=(n_classes + 1) ** 2).reshape(n_classes + 1, n_classes + 1)
        return cls(counts[1:].astype(np.int64))

    def __add__(self, other: ConfusionMatrix) -> ConfusionMatrix:
        return ConfusionMatrix(self.counts + other.counts)

    @property
    def n_classes(self) -> int:
        return int(self.counts.shape[0])

    @property
    def present(self) -> NDArray[np.bool_]:
        """Which classes occur in the truth."""
        result: NDArray[np.bool_] = self.counts.sum(1) > 0
        return result

    @property
    def accuracy(self) -> float:
        """Share of labelled pixels with the right class; NaN without any."""
        return float(accuracy(self.counts))

    def per_class(self, metric: str) -> Scores:
        """``(n_classes,)`` values of one of :data:`METRICS`; NaN where the formula divides by 0."""
        return per_class(self.counts, metric)

    def macro(self, metric: str) -> float:
        """Mean over the classes that occur in the truth; NaN without any."""
        return float(macro(self.counts, metric))

    def micro(self, metric: str) -> float:
        """The metric of the sums of TP, FP and FN over the classes."""
        return float(micro(self.counts, metric))

    def scores(self, class_names: Sequence[str]) -> dict[str, float]:
        """The defined ones of :func:`scores_of`: a class that neither occurs nor is predicted has no Dice; no NaN."""
        found = {name: float(value) for name, value in scores_of(self.counts, class_names).items()}
        return {name: value for name, value in found.items() if np.isfinite(value)}


def scores_of(counts: Counts, class_names: Sequence[str]) -> dict[str, Scores]:
    """All scores by name, such as ``dice/Tumor``, ``macro/dice``, ``micro/iou`` and ``accuracy``.

    Returns
    -------
    An array ``(...)`` a score; NaN where the counts do not define it.
    """
    found = {"accuracy": accuracy(counts)}
    for metric in METRICS:
        found |= {f"macro/{metric}": macro(counts, metric), f"micro/{metric}": micro(counts, metric)}
        values = per_class(counts, metric)
        found |= {f"{metric}/{name}": values[..., k] for k, name in enumerate(class_names)}
    return found


def accuracy(counts: Counts) -> Scores:
    """Share of labelled pixels with the right class, ``(...)``."""
    return _ratio(_diagonal(counts).sum(-1), counts.sum((-2, -1)))


def per_class(counts: Counts, metric: str) -> Scores:
    """``(..., n_classes)`` values of one of :data:`METRICS`."""
    return _ratio(*_fraction(counts, metric))


def macro(counts: Counts, metric: str) -> Scores:
    """``(...)`` means over the classes that occur in the truth."""
    present = counts.sum(-1) > 0
    return _ratio(np.where(present, np.nan_to_num(per_class(counts, metric)), 0).sum(-1), present.sum(-1))


def micro(counts: Counts, metric: str) -> Scores:
    """``(...)`` values of the formula on the sums over the classes."""
    numerator, denominator = _fraction(counts, metric)
    return _ratio(numerator.sum(-1), denominator.sum(-1))


def _fraction(counts: Counts, metric: str) -> tuple[NDArray[Any], NDArray[Any]]:
    positives, actual, predicted = _diagonal(counts), counts.sum(-1), counts[..., 1:].sum(-2)
    match metric:
        case "dice":
            return 2 * positives, actual + predicted
        case "iou":
            return positives, actual + predicted - positives
        case "precision":
            return positives, predicted
        case "recall":
            return positives, actual
    raise ValueError(f"{metric!r} is not one of {', '.join(METRICS)}")


def _diagonal(counts: Counts) -> NDArray[Any]:
    return np.diagonal(counts[..., 1:], axis1=-2, axis2=-1)


def _ratio(numerator: NDArray[Any], denominator: NDArray[Any]) -> Scores:
    undefined = np.full(np.shape(denominator), np.nan)
    result: Scores = np.divide(numerator, denominator, out=undefined, where=np.asarray(denominator) > 0)
    return result
