"""The columns of the paper's Table 1 as they were computed, each with its formula.

The table prints two metrics under each name. For BCSS, "Dice" is the share of labelled pixels that are right, A, and
"IOU" is A / (2 - A). For CRAG, "Dice" is the Dice of the class gland, but "IOU" is the gland's recall in the rows of
trained models, and its IoU in the rows of vanilla SAM. :func:`as_in_the_paper` gives these numbers from a confusion
matrix, so that results can be laid beside the table, and the IoU that the trained rows should have had.
"""

from __future__ import annotations

import math
from typing import Literal, TypedDict

from sampath_wsi.metrics import ConfusionMatrix

Rule = Literal["bcss", "crag", "crag vanilla"]


class PaperScore(TypedDict):
    """A number and how it comes about; the value is None where the counts do not define it."""

    value: float | None
    formula: str


PRINTED: dict[str, dict[str, tuple[float, float] | None]] = {
    "Vanilla SAM": {"BCSS": None, "CRAG": (0.5245, 0.3555)},
    "Vanilla SAM with post-processing": {"BCSS": None, "CRAG": (0.6598, 0.4924)},
    "Fine-tuned SAM (w.o. F_p)": {"BCSS": (0.7562, 0.6080), "CRAG": (0.8414, 0.8451)},
    "SAM-Path w.o. F_s": {"BCSS": (0.7813, 0.6411), "CRAG": (0.8191, 0.8252)},
    "SAM-Path": {"BCSS": (0.7949, 0.6596), "CRAG": (0.8841, 0.8831)},
}
"""Table 1: (Dice, IOU) as printed, by row and data set; None where the table has no number."""


def rule_for(n_classes: int, *, prompted: bool = False) -> Rule:
    """How the paper would have scored: two classes (background, gland) as CRAG, any other number as BCSS."""
    if n_classes != 2:
        return "bcss"
    return "crag vanilla" if prompted else "crag"


def iou_of_dice(dice: float) -> float:
    """The IoU that belongs to a Dice: D / (2 - D)."""
    return dice / (2 - dice)


def as_in_the_paper(matrix: ConfusionMatrix, rule: Rule) -> dict[str, PaperScore]:
    """The paper's columns.

    Parameters
    ----------
    matrix
        Of all pixels of the test set; for the rules of CRAG its classes are background and gland.
    rule
        Which rows of the table are to be matched, see :func:`rule_for`.

    Returns
    -------
    ``dice`` and ``iou`` as the paper has them, and with the rules of CRAG ``iou_corrected``.
    """
    if rule == "bcss":
        accuracy = matrix.accuracy
        return {
            "dice": _score(accuracy, "A = right pixels / labelled pixels"),
            "iou": _score(iou_of_dice(accuracy), "A / (2 - A)"),
        }
    dice, recall = float(matrix.per_class("dice")[-1]), float(matrix.per_class("recall")[-1])
    true_iou = _score(iou_of_dice(dice), "D / (2 - D) = TP / (TP + FP + FN) of the gland")
    return {
        "dice": _score(dice, "D = 2 TP / (2 TP + FP + FN) of the gland"),
        "iou": _score(recall, "TP / (TP + FN) of the gland: its recall") if rule == "crag" else true_iou,
        "iou_corrected": true_iou,
    }


def _score(value: float, formula: str) -> PaperScore:
    return {"value": value if math.isfinite(value) else None, "formula": formula}
