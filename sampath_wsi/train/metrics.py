"""Every score from one confusion matrix.

With true positives TP, false positives FP and false negatives FN of a class, counted in pixels:

- Dice = 2 TP / (2 TP + FP + FN), IoU = TP / (TP + FP + FN)
- precision = TP / (TP + FP), recall = TP / (TP + FN)
- macro = mean over the classes that occur in the truth
- micro = the same formula on the sums over all classes
- accuracy = share of labelled pixels that are right
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

METRICS = ("dice", "iou", "precision", "recall")


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
        return _ratio(float(np.trace(self.counts[:, 1:])), float(self.counts.sum()))

    def per_class(self, metric: str) -> NDArray[np.float64]:
        """``(n_classes,)`` values of one of :data:`METRICS`; NaN where the formula divides by 0."""
        positives = np.diag(self.counts[:, 1:]).astype(np.float64)
        return np.array([_ratio(*parts) for parts in zip(*self._fraction(metric, positives), strict=True)])

    def macro(self, metric: str) -> float:
        """Mean over the classes that occur in the truth; one that is never predicted has precision 0."""
        values = np.nan_to_num(self.per_class(metric)[self.present])
        return float(values.mean()) if values.size else float("nan")

    def micro(self, metric: str) -> float:
        """The metric of the sums of TP, FP and FN over the classes."""
        positives = np.diag(self.counts[:, 1:]).astype(np.float64)
        numerator, denominator = self._fraction(metric, positives)
        return _ratio(float(numerator.sum()), float(denominator.sum()))

    def scores(self, class_names: Sequence[str]) -> dict[str, float]:
        """All scores by name, such as ``dice/Tumor``, ``macro/dice``, ``micro/iou`` and ``accuracy``; no NaN.

        A score that the data do not define (a class that neither occurs nor is predicted) is left out.
        """
        found: dict[str, float] = {"accuracy": self.accuracy}
        for metric in METRICS:
            found[f"macro/{metric}"], found[f"micro/{metric}"] = self.macro(metric), self.micro(metric)
            values = self.per_class(metric)
            found |= {f"{metric}/{name}": float(v) for name, v in zip(class_names, values, strict=True)}
        return {name: value for name, value in found.items() if np.isfinite(value)}

    def _fraction(self, metric: str, positives: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        actual = self.counts.sum(1).astype(np.float64)
        predicted = self.counts[:, 1:].sum(0).astype(np.float64)
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


def _ratio(numerator: float, denominator: float) -> float:
    return float(numerator / denominator) if denominator else float("nan")
