"""The paper's printed results (Zhang et al., SAM-Path, MICCAI 2023 workshops), and how its columns were computed.

Table 1 prints two metrics under each name. For BCSS, "Dice" is the share of labelled pixels that are right, A, and
"IOU" is A / (2 - A). For CRAG, "Dice" is the Dice of the class gland, but "IOU" is the gland's recall in the rows of
trained models, and its IoU in the rows of vanilla SAM. :func:`as_in_the_paper` gives these numbers from a confusion
matrix, so that results can be laid beside the table, and the IoU that the trained rows should have had.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from pydantic import BaseModel

from sampath_wsi.metrics import ConfusionMatrix

VANILLA_ROWS = ("vanilla", "vanilla_pp")
"""Rows of models that are not trained, but shown one dot a gland."""
LABELS = {
    "vanilla": "Vanilla SAM",
    "vanilla_pp": "Vanilla SAM with post-processing",
    "no_pathology": "Fine-tuned SAM (w.o. F_p)",
    "no_sam": "SAM-Path w.o. F_s",
    "sampath": "SAM-Path",
}
"""Rows of Table 1, in its order: a short name and the paper's."""
TITLES = {"bcss": "BCSS", "crag": "CRAG", "glas": "GlaS"}
"""Data sets, as they are called in print; the paper has no results on GlaS."""
PRINTED: dict[str, dict[str, tuple[float, float]]] = {
    "vanilla": {"crag": (0.5245, 0.3555)},
    "vanilla_pp": {"crag": (0.6598, 0.4924)},
    "no_pathology": {"bcss": (0.7562, 0.6080), "crag": (0.8414, 0.8451)},
    "no_sam": {"bcss": (0.7813, 0.6411), "crag": (0.8191, 0.8252)},
    "sampath": {"bcss": (0.7949, 0.6596), "crag": (0.8841, 0.8831)},
}
"""Table 1: (Dice, IOU) as printed, by row and data set."""
BEST_WEIGHTS = {"bcss": (0.25, 0.0625), "crag": (0.125, 0.0)}
"""Figure 4: the best alpha (share of the focal loss) and the best beta (weight of the IoU loss)."""
SECONDS_DEVICE = "Quadro RTX 8000"
SECONDS_PER_IMAGE = {
    ("vanilla", "bcss"): 2.69,
    ("vanilla", "crag"): 0.38,
    ("sampath", "bcss"): 0.29,
    ("sampath", "crag"): 0.29,
}
"""Supplementary Table 1: seconds an image (for BCSS a tile of 1024 px, there with densely sampled dots)."""


class Printed(NamedTuple):
    """A row of Table 1 on one data set; None where nothing is printed."""

    dice: float | None = None
    iou: float | None = None
    iou_corrected: float | None = None
    """The IoU that follows from the printed Dice, D / (2 - D): for CRAG's trained rows the printed one is a recall."""


class PaperScore(BaseModel):
    """A score and the way it is computed; the value is None where the counts do not define it."""

    value: float | None
    formula: str


def printed(row: str, data_set: str) -> Printed:
    """Return a row of Table 1 on a data set."""
    if data_set not in PRINTED[row]:
        return Printed()
    dice, iou = PRINTED[row][data_set]
    return Printed(dice, iou, round(iou_of_dice(dice), 4) if data_set == "crag" else None)


def iou_of_dice(dice: float) -> float:
    """Return the IoU that belongs to a Dice: D / (2 - D)."""
    return dice / (2 - dice)


def as_in_the_paper(matrix: ConfusionMatrix, *, prompted: bool = False) -> dict[str, PaperScore]:
    """Compute the paper's columns: two classes (background, gland) as for CRAG, any other number as for BCSS.

    Parameters
    ----------
    matrix
        Of all pixels of the test set.
    prompted
        As in the rows of vanilla SAM.

    Returns
    -------
    ``dice`` and ``iou`` as the paper has them, and for glands ``iou_corrected``.
    """
    if len(matrix.counts) != 2:
        accuracy = float(matrix.accuracy)
        return {
            "dice": _score(accuracy, "A = right pixels / labelled pixels"),
            "iou": _score(iou_of_dice(accuracy), "A / (2 - A)"),
        }
    dice, recall = float(matrix.per_class("dice")[-1]), float(matrix.per_class("recall")[-1])
    true_iou = _score(iou_of_dice(dice), "D / (2 - D) = TP / (TP + FP + FN) of the gland")
    return {
        "dice": _score(dice, "D = 2 TP / (2 TP + FP + FN) of the gland"),
        "iou": true_iou if prompted else _score(recall, "TP / (TP + FN) of the gland: its recall"),
        "iou_corrected": true_iou,
    }


def _score(value: float, formula: str) -> PaperScore:
    return PaperScore(value=value if math.isfinite(value) else None, formula=formula)
