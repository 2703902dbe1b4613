"""The loss of SAM-Path: focal + Dice + predicted-IoU terms, with the values and gradients of the authors' code.

With logits ``z``, one-hot targets ``t`` and the mask ``m`` of labelled pixels: ``x = z m``, ``y = t m``,
``p = softmax(x)``. Every term is averaged over images and over the classes (channel 0, "unlabelled", takes part in the
softmax alone):

- Dice: ``1 - (2 sum(p y) + 1e-5) / (sum p + sum y + 1e-5)``
- focal: mean over pixels of ``(1 - p_t)^2 BCE(sigmoid(x), y)``
- IoU: ``(predicted IoU - IoU[p >= 0.5, y])^2``
- cross-entropy (off in both recipes): over labelled pixels

The paper (Zhang et al., SAM-Path, 2023) writes sums over the classes where its code takes means:
``reduction="sum"`` gives the paper's form. As in the code, unlabelled pixels are not neutral: their logits are set
to zero, which spreads their probability evenly over the classes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from sampath_wsi.training.recipe import LossSpec

# The recipe for BCSS.
PAPER = LossSpec()

_DICE_SMOOTH = 1e-5
_IOU_SMOOTH = 1e-7
_FOCAL_GAMMA = 2


class LossTerms(NamedTuple):
    """Scalars: the weighted total and its terms before weighting."""

    total: Tensor
    focal: Tensor
    dice: Tensor
    iou: Tensor
    cross_entropy: Tensor


def sam_path_loss(
    logits: Tensor,
    predicted_iou: Tensor,
    labels: Tensor,
    spec: LossSpec = PAPER,
    *,
    labelled_px: float | None = None,
) -> LossTerms:
    """Compute the loss of a batch; it is finite for finite logits, also when no pixel is labelled.

    Parameters
    ----------
    logits
        ``(B, n_classes + 1, H, W)``; channel 0 is "unlabelled".
    predicted_iou
        ``(B, n_classes + 1)``.
    labels
        ``(B, H, W)`` integers: 0 = ignored, i + 1 = class i.
    spec
        Weights of the terms, and the reduction over the classes.
    labelled_px
        What the cross-entropy is divided by; by default the labelled pixels of the batch. Where a batch is divided
        among processes: their mean over the processes.
    """
    labels = labels.long()
    labelled = (labels > 0).unsqueeze(1)
    classes = F.one_hot(labels, logits.shape[1]).movedim(-1, 1)[:, 1:].to(logits.dtype)
    masked = logits * labelled
    probability = masked.softmax(dim=1)[:, 1:]
    per_class = {
        "focal": focal_term(masked[:, 1:], classes),
        "dice": dice_term(probability, classes),
        "iou": iou_term(predicted_iou[:, 1:], probability, classes),
    }
    over_classes = {
        name: value.mean(0).mean() if spec.reduction == "mean" else value.mean(0).sum()
        for name, value in per_class.items()
    }
    cross_entropy = cross_entropy_term(logits, labels, labelled_px) if spec.cross_entropy else logits.new_zeros(())
    total = spec.focal * over_classes["focal"] + spec.dice * over_classes["dice"]
    total = total + spec.iou * over_classes["iou"] + spec.cross_entropy * cross_entropy
    return LossTerms(total, **over_classes, cross_entropy=cross_entropy)


def dice_term(probability: Tensor, target: Tensor) -> Tensor:
    """Compute 1 - Dice of each image and class: ``(B, C, H, W)`` twice -> ``(B, C)``."""
    overlap = (probability * target).sum((2, 3))
    total = probability.sum((2, 3)) + target.sum((2, 3))
    return 1 - (2 * overlap + _DICE_SMOOTH) / (total + _DICE_SMOOTH)


def focal_term(logits: Tensor, target: Tensor) -> Tensor:
    """Compute the sigmoid focal loss of each image and class, mean over pixels: as :func:`dice_term`."""
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    probability = logits.sigmoid()
    of_truth = probability * target + (1 - probability) * (1 - target)
    return ((1 - of_truth) ** _FOCAL_GAMMA * cross_entropy).mean((2, 3))


def iou_term(predicted_iou: Tensor, probability: Tensor, target: Tensor) -> Tensor:
    """Compute the squared error of the predicted IoU of each image and class -> ``(B, C)``."""
    with torch.no_grad():
        mask = (probability >= 0.5).to(target.dtype)
        overlap = (mask * target).sum((2, 3))
        union = mask.sum((2, 3)) + target.sum((2, 3)) - overlap
        iou = overlap / (union + _IOU_SMOOTH)
    return (predicted_iou.to(iou.dtype) - iou) ** 2


def cross_entropy_term(logits: Tensor, labels: Tensor, labelled_px: float | None = None) -> Tensor:
    """Compute the softmax cross-entropy over the labelled pixels of a batch; 0 where there are none."""
    total = F.cross_entropy(logits, labels, ignore_index=0, reduction="sum")
    if labelled_px is not None:
        return total / (labelled_px or 1.0)
    return total / (labels > 0).sum().clamp(min=1)
