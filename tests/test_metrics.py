"""Metrics against a plain loop over pixels; intervals against exact cases, plain resampling and a known truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sampath_wsi.metrics import METRICS, ConfusionMatrix, bootstrap

N = 3
NAMES = ("a", "b")
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


def _fields(rng: np.random.Generator, count: int, accuracy: np.ndarray) -> np.ndarray:
    """Fields of 100 pixels of either class, of which a share of about ``accuracy`` is right."""
    right = rng.binomial(100, accuracy[:, None], (count, 2))
    counts = np.zeros((count, 2, 3), np.int64)
    counts[:, 0, 1], counts[:, 0, 2] = right[:, 0], 100 - right[:, 0]
    counts[:, 1, 2], counts[:, 1, 1] = right[:, 1], 100 - right[:, 1]
    return counts


def test_equals_plain_resampling() -> None:
    rng = np.random.default_rng(1)
    counts = _fields(rng, 7, rng.uniform(0.5, 0.9, 7))
    found = bootstrap(counts, NAMES, resamples=50, seed=3, level=0.9)
    draws = np.random.default_rng(3).multinomial(7, [1 / 7] * 7, size=50)
    plain = [ConfusionMatrix(sum(n * c for n, c in zip(draw, counts, strict=True))).scores(NAMES) for draw in draws]
    assert set(found) == set(plain[0])
    for name, interval in found.items():
        np.testing.assert_allclose(interval, np.quantile([p[name] for p in plain], (0.05, 0.95)))


def test_two_fields_by_hand() -> None:
    """One field all right, one all wrong: of four equally likely draws one is all right and one all wrong."""
    counts = np.array([[[0, 10, 0], [0, 0, 10]], [[0, 0, 10], [0, 10, 0]]])
    assert bootstrap(counts, NAMES)["accuracy"] == (0, 1)
    assert bootstrap(counts, NAMES, level=0.4)["accuracy"] == (0.5, 0.5)
    same = np.repeat(counts[:1], 5, axis=0)
    assert bootstrap(same, NAMES)["dice/a"] == (1, 1)


def test_one_unit_has_no_interval() -> None:
    counts = _fields(np.random.default_rng(0), 3, np.full(3, 0.7))
    assert bootstrap(counts[:1], NAMES) == {}
    assert bootstrap(counts, NAMES, groups=["x", "x", "x"]) == {}
    assert "dice/b" in bootstrap(counts, NAMES, groups=["x", "y", "x"])


def test_a_class_that_no_field_has_has_no_interval() -> None:
    counts = _fields(np.random.default_rng(0), 4, np.full(4, 0.7))
    padded = np.zeros((4, 3, 4), np.int64)
    padded[:, :2, :3] = counts
    found = bootstrap(padded, ("a", "b", "c"))
    assert "dice/a" in found
    assert "dice/c" not in found
    assert all(np.isfinite(found["macro/dice"]))


def test_groups_are_drawn_whole() -> None:
    rng = np.random.default_rng(2)
    per_group = rng.uniform(0.4, 0.95, 8)
    counts = _fields(rng, 40, np.repeat(per_group, 5))
    groups = np.repeat(list("abcdefgh"), 5).tolist()
    summed = counts.reshape(8, 5, 2, 3).sum(1)
    clustered = bootstrap(counts, NAMES, groups=groups)
    assert clustered == bootstrap(summed, NAMES)
    low, high = bootstrap(counts, NAMES)["accuracy"]
    assert high - low < 0.7 * (clustered["accuracy"][1] - clustered["accuracy"][0])


def test_about_95_of_100_intervals_hold_the_truth() -> None:
    rng = np.random.default_rng(4)
    held = 0
    for k in range(200):
        counts = _fields(rng, 40, rng.uniform(0.5, 0.9, 40))
        low, high = bootstrap(counts, NAMES, resamples=400, seed=k)["accuracy"]
        held += low <= 0.7 <= high
    assert 0.89 <= held / 200 <= 0.985


@pytest.mark.parametrize("shape", [(), (5,), (2, 3)])
def test_scores_of_many_matrices_are_those_of_each(shape: tuple[int, ...]) -> None:
    counts = np.random.default_rng(0).integers(0, 5, (*shape, 3, 4)) * np.array([1, 0, 1])[:, None]
    many = ConfusionMatrix(counts).all_scores(("a", "b", "c"))
    for index in np.ndindex(shape):
        one = ConfusionMatrix(counts[index]).scores(("a", "b", "c"))
        found = {name: float(values[index]) for name, values in many.items() if np.isfinite(values[index])}
        assert found == one
