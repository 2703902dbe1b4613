"""What the paper printed (Zhang et al., SAM-Path, MICCAI 2023 workshops): data, to be laid beside our own.

Table 1 is in :data:`sampath_wsi.training.scoring.paper_metrics.PRINTED`, with what its columns mean.
"""

from __future__ import annotations

from dataclasses import dataclass

from sampath_wsi.training.scoring.paper_metrics import PRINTED, iou_of_dice

VANILLA_ROWS = ("vanilla", "vanilla_pp")
"""Rows of models that are not trained, but shown one dot a gland."""
LABELS = dict(zip((*VANILLA_ROWS, "no_pathology", "no_sam", "sampath"), PRINTED, strict=True))
"""Rows of Table 1, in its order: a short name and the paper's."""
TITLES = {"bcss": "BCSS", "crag": "CRAG", "glas": "GlaS"}
"""Data sets, as they are called in print; the paper has no results on GlaS."""


@dataclass(frozen=True)
class Printed:
    """A row of Table 1 on one data set; None where nothing is printed."""

    dice: float | None
    iou: float | None
    iou_corrected: float | None
    """The IoU that follows from the printed Dice, D / (2 - D): for CRAG's trained rows the printed one is a recall."""


def printed(row: str, data_set: str) -> Printed:
    """What Table 1 says of a row on a data set."""
    values = PRINTED[LABELS[row]].get(TITLES[data_set])
    if values is None:
        return Printed(None, None, None)
    dice, iou = values
    return Printed(dice, iou, round(iou_of_dice(dice), 4) if data_set == "crag" else None)


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
