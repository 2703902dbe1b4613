"""The paper's Table 1, reproduced from confusion matrices."""

from __future__ import annotations

import numpy as np
import pytest

from sampath_wsi.metrics import ConfusionMatrix
from sampath_wsi.training.scoring.paper import PRINTED, as_in_the_paper, iou_of_dice

PIXELS = 10_000_000
CORRECTED = {"no_pathology": 0.7262, "no_sam": 0.6936, "sampath": 0.7923}


def _glands(dice: float, recall: float) -> ConfusionMatrix:
    """Background and gland with this Dice and recall of the gland."""
    hits = round(recall * PIXELS)
    predicted = round(2 * hits / dice) - PIXELS
    return ConfusionMatrix(np.array([[0, PIXELS, predicted - hits], [0, PIXELS - hits, hits]]))


def _values(matrix: ConfusionMatrix, *, prompted: bool = False) -> dict[str, float | None]:
    return {name: score.value for name, score in as_in_the_paper(matrix, prompted=prompted).items()}


@pytest.mark.parametrize("row", [row for row, printed in PRINTED.items() if "bcss" in printed])
def test_bcss(row: str) -> None:
    dice, iou = PRINTED[row]["bcss"]
    right = round(dice * PIXELS)
    counts = np.zeros((5, 6), np.int64)
    counts[0, 1], counts[0, 2], counts[4, 5] = right - 500, PIXELS - right, 500
    assert _values(ConfusionMatrix(counts)) == {
        "dice": pytest.approx(dice, abs=1e-6),
        "iou": pytest.approx(iou, abs=6e-5),
    }


@pytest.mark.parametrize("row", CORRECTED)
def test_crag_prints_recall_as_iou(row: str) -> None:
    dice, iou = PRINTED[row]["crag"]
    matrix = _glands(dice, recall=iou)
    found = _values(matrix)
    assert found["dice"] == pytest.approx(dice, abs=1e-6)
    assert found["iou"] == pytest.approx(iou, abs=1e-6)
    assert found["iou_corrected"] == pytest.approx(CORRECTED[row], abs=6e-5)
    assert found["iou_corrected"] == pytest.approx(matrix.per_class("iou")[1])


@pytest.mark.parametrize("row", ["vanilla", "vanilla_pp"])
def test_vanilla_sam_prints_true_iou(row: str) -> None:
    dice, iou = PRINTED[row]["crag"]
    assert "bcss" not in PRINTED[row]
    found = _values(_glands(dice, recall=0.7), prompted=True)
    assert found["iou"] == found["iou_corrected"] == pytest.approx(iou, abs=1.1e-4)


def test_what_is_not_defined_is_null() -> None:
    nothing = ConfusionMatrix(np.array([[0, 5, 0], [0, 0, 0]]))
    assert _values(nothing) == {"dice": None, "iou": None, "iou_corrected": None}
    assert _values(ConfusionMatrix.empty(3)) == {"dice": None, "iou": None}
    assert iou_of_dice(1.0) == 1.0
