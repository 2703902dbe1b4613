"""Scores of label maps, from confusion matrices alone, and their bootstrap intervals.

With true positives TP, false positives FP and false negatives FN of a class, counted in pixels:

- Dice = 2 TP / (2 TP + FP + FN), IoU = TP / (TP + FP + FN)
- precision = TP / (TP + FP), recall = TP / (TP + FN)
- macro = mean over the classes that occur in the truth; one of them that is never predicted has precision 0
- micro = the same formula on the sums over all classes
- accuracy = share of labelled pixels that are right
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

METRICS = ("dice", "iou", "precision", "recall")
RESAMPLES = 2000
LEVEL = 0.95

Counts = NDArray[np.int64]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class ConfusionMatrix:
    """Pixel counts: row = true class, column 0 = predicted as no class, column j + 1 = predicted as class j.

    Matrices of images, tiles or slides of the same classes are added with ``+``. One object may hold many matrices,
    along further axes in front; its scores then have these axes too.
    """

    counts: Counts
    """``(..., n_classes, n_classes + 1)``."""

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
    def present(self) -> NDArray[np.bool_]:
        """Whether each class occurs in the truth, ``(..., n_classes)``."""
        return np.asarray(self.counts.sum(-1) > 0)

    @property
    def accuracy(self) -> Values:
        """Share of labelled pixels with the right class, ``(...)``; NaN without any."""
        return _ratio(self._hits.sum(-1), self.counts.sum((-2, -1)))

    def per_class(self, metric: str) -> Values:
        """``(..., n_classes)`` values of one of :data:`METRICS`; NaN where the formula divides by 0."""
        return _ratio(*self._fraction(metric))

    def macro(self, metric: str) -> Values:
        """``(...)`` means over the classes that occur in the truth; NaN without any."""
        present = self.present
        return _ratio(np.where(present, np.nan_to_num(self.per_class(metric)), 0).sum(-1), present.sum(-1))

    def micro(self, metric: str) -> Values:
        """``(...)`` values of the formula on the sums of TP, FP and FN over the classes."""
        numerator, denominator = self._fraction(metric)
        return _ratio(numerator.sum(-1), denominator.sum(-1))

    def all_scores(self, class_names: Sequence[str]) -> dict[str, Values]:
        """Return ``(...)`` values by name (``dice/Tumor``, ``macro/dice``, ``micro/iou``, ``accuracy``); may be NaN."""
        found = {"accuracy": self.accuracy}
        for metric in METRICS:
            found |= {f"macro/{metric}": self.macro(metric), f"micro/{metric}": self.micro(metric)}
            values = self.per_class(metric)
            found |= {f"{metric}/{name}": values[..., k] for k, name in enumerate(class_names)}
        return found

    def scores(self, class_names: Sequence[str]) -> dict[str, float]:
        """Return the defined scores of one matrix; a class that neither occurs nor is predicted has no Dice."""
        return {name: float(value) for name, value in self.all_scores(class_names).items() if np.isfinite(value)}

    @property
    def _hits(self) -> Counts:
        return np.diagonal(self.counts[..., 1:], axis1=-2, axis2=-1)

    def _fraction(self, metric: str) -> tuple[Counts, Counts]:
        """Return numerator and denominator of a metric, ``(..., n_classes)`` each."""
        hits, actual, predicted = self._hits, self.counts.sum(-1), self.counts[..., 1:].sum(-2)
        match metric:
            case "dice":
                return 2 * hits, actual + predicted
            case "iou":
                return hits, actual + predicted - hits
            case "precision":
                return hits, predicted
            case "recall":
                return hits, actual
        raise ValueError(f"{metric!r} is not one of {', '.join(METRICS)}")


def bootstrap(
    counts: Counts,
    class_names: Sequence[str],
    *,
    groups: Sequence[str] | None = None,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Return percentile intervals of all scores: how they would vary with other images, or patients, of the same kind.

    Images differ, pixels of one image hardly do: the unit that is drawn with replacement is the field, or the group of
    fields (patient, slide) that belong together. Each draw is scored as a whole, from the sum of its matrices.

    Parameters
    ----------
    counts
        Confusion matrices of the fields, ``(n_fields, n_classes, n_classes + 1)``.
    groups
        The group of each field, to draw groups with all their fields (cluster bootstrap); by default fields are drawn.
    resamples
        How often.
    level
        Share of the resamples inside an interval.
    seed
        Determines the draws.

    Returns
    -------
    Lower and upper end by name. A score that a resample does not define (its class was not drawn) is left out of
    that resample; one that none defines has no interval, and nothing has one if there are fewer than two units.
    """
    if groups is not None:
        names, index = np.unique(np.asarray(groups), return_inverse=True)
        sums = np.zeros((len(names), *counts.shape[1:]), np.int64)
        np.add.at(sums, index, counts)
        counts = sums
    n = len(counts)
    if n < 2:
        return {}
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    # In float64 the products are done by BLAS, and exact: no sum of pixels comes near 2^53.
    drawn = (draws.astype(np.float64) @ counts.reshape(n, -1).astype(np.float64)).astype(np.int64)
    intervals = {}
    for name, values in ConfusionMatrix(drawn.reshape(-1, *counts.shape[1:])).all_scores(class_names).items():
        defined = values[np.isfinite(values)]
        if len(defined):
            low, high = np.quantile(defined, (0.5 - level / 2, 0.5 + level / 2))
            intervals[name] = (float(low), float(high))
    return intervals


def _ratio(numerator: Counts, denominator: Counts) -> Values:
    undefined = np.full(np.shape(denominator), np.nan)
    return np.asarray(np.divide(numerator, denominator, out=undefined, where=np.asarray(denominator) > 0))
