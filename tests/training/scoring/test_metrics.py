"""Metrics against a plain loop over pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sampath_wsi.metrics import METRICS, ConfusionMatrix

N = 3
LABELS = hnp.arrays(np.uint8, (6, 7), elements=st.integers(0, N))


def _plain(truth: np.ndarray, prediction: np.ndarray, label: int) -> dict[str, float]:
    tp = fp = fn = 0
    for t, p in zip(truth.ravel().tolist(), prediction.ravel().tolist(), strict=True):
        if t == 0:
            continue
        tp += t == label and p == label
        fp += t != label and p == label
        fn += t == label and p != label

    def ratio(a: int, b: int) -> float:
        return a / b if b else math.nan

    return {
        "dice": ratio(2 * tp, 2 * tp + fp + fn),
        "iou": ratio(tp, tp + fp + fn),
        "precision": ratio(tp, tp + fp),
        "recall": ratio(tp, tp + fn),
    }


@given(LABELS, LABELS)
def test_equals_a_plain_loop(truth: np.ndarray, prediction: np.ndarray) -> None:
    matrix = ConfusionMatrix.of(truth, prediction, N)
    plain = [_plain(truth, prediction, label) for label in range(1, N + 1)]
    for metric in METRICS:
        expected = [p[metric] for p in plain]
        np.testing.assert_allclose(matrix.per_class(metric), expected)
        present = [0.0 if math.isnan(e) else e for k, e in enumerate(expected) if (truth == k + 1).any()]
        np.testing.assert_allclose(matrix.macro(metric), np.mean(present) if present else math.nan)
    labelled = truth > 0
    accuracy = (truth == prediction)[labelled].mean() if labelled.any() else math.nan
    np.testing.assert_allclose(matrix.accuracy, accuracy)
    assert all(math.isfinite(v) for v in matrix.scores(("a", "b", "c")).values())


@given(LABELS, LABELS)
def test_parts_add_up(truth: np.ndarray, prediction: np.ndarray) -> None:
    whole = ConfusionMatrix.of(truth, prediction, N)
    parts = ConfusionMatrix.empty(N)
    for row in range(len(truth)):
        parts += ConfusionMatrix.of(truth[row], prediction[row], N)
    np.testing.assert_array_equal(whole.counts, parts.counts)


def test_micro_of_a_small_case() -> None:
    truth, prediction = np.array([1, 1, 2, 2, 0]), np.array([1, 2, 2, 0, 1])
    matrix = ConfusionMatrix.of(truth, prediction, 2)
    assert matrix.micro("precision") == pytest.approx(2 / 3)
    assert matrix.micro("recall") == pytest.approx(2 / 4)
    assert matrix.micro("dice") == pytest.approx(4 / 7)
    assert matrix.accuracy == pytest.approx(0.5)


def test_wrong_shapes_labels_and_names_are_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        ConfusionMatrix.of(np.zeros(3, int), np.zeros(4, int), 2)
    with pytest.raises(ValueError, match="prediction must be 0 to 2"):
        ConfusionMatrix.of(np.zeros(1, int), np.full(1, 3), 2)
    with pytest.raises(ValueError, match="not one of"):
        ConfusionMatrix.empty(2).per_class("kappa")
