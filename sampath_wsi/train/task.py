"""The training step, the validation step and the optimiser, for Lightning."""

from __future__ import annotations

import math
from typing import Any

import sampath_wsi.model.torchvision_compat  # noqa: F401

# isort: split
import lightning.pytorch as lightning
import torch
from torch import Tensor

from sampath_wsi.errors import ModelError
from sampath_wsi.model.sampath import SamPath, predict_labels, trainable_parameters, upsample_logits
from sampath_wsi.train.loss import LossTerms, sam_path_loss
from sampath_wsi.train.metrics import ConfusionMatrix
from sampath_wsi.train.recipe import OptimiserSpec, Recipe

Batch = tuple[Tensor, Tensor]


class SegmentationTask(lightning.LightningModule):
    """A model in training.

    Parameters
    ----------
    model
        What is trained; encoders that the recipe freezes must have been frozen.
    recipe
        How it is trained.
    class_names
        For the names of the scores.
    steps_per_epoch
        Optimiser steps an epoch, which warm-up and milestones are counted in.

    Attributes
    ----------
    scores
        Of the last validation: see :meth:`ConfusionMatrix.scores`, and ``loss``.
    """

    def __init__(self, model: SamPath, recipe: Recipe, class_names: tuple[str, ...], steps_per_epoch: int) -> None:
        super().__init__()
        self.model = model
        self._recipe, self._class_names, self._steps_per_epoch = recipe, class_names, steps_per_epoch
        self._matrix = ConfusionMatrix.empty(len(class_names))
        self._losses: dict[str, list[float]] = {"train": [], "val": []}
        self.scores: dict[str, float] = {}

    # -- steps ------------------------------------------------------------------------------------------------

    def _loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, LossTerms]:
        spec = self._recipe.loss
        logits, iou = self.model(images)
        part = labels[:, spec.stride // 2 :: spec.stride, spec.stride // 2 :: spec.stride]
        terms = sam_path_loss(
            upsample_logits(logits, (part.shape[1], part.shape[2])),
            iou,
            part,
            focal_weight=spec.focal,
            dice_weight=spec.dice,
            iou_weight=spec.iou,
            cross_entropy_weight=spec.cross_entropy,
            reduction=spec.reduction,
        )
        return logits, terms

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """The loss of a batch.

        Raises
        ------
        ModelError
            If it is not finite.
        """
        _, terms = self._loss(*batch)
        value = float(terms.total.detach())
        if not math.isfinite(value):
            raise ModelError(
                f"the loss is {value} in epoch {self.current_epoch}, batch {batch_index}",
                "Lower learning_rate or set clip_norm in the recipe, and resume from the last checkpoint.",
            )
        self._losses["train"].append(value)
        return terms.total

    def on_validation_epoch_start(self) -> None:
        self._matrix = ConfusionMatrix.empty(len(self._class_names))
        self._losses["val"] = []

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Count the pixels of a batch at the labels' resolution."""
        labels = batch[1]
        logits, terms = self._loss(*batch)
        predicted = predict_labels(upsample_logits(logits, (labels.shape[1], labels.shape[2])))
        self._matrix += ConfusionMatrix.of(labels.cpu().numpy(), predicted.cpu().numpy(), len(self._class_names))
        self._losses["val"].append(float(terms.total))

    def on_validation_epoch_end(self) -> None:
        self.scores = {"loss": _mean(self._losses["val"])} | self._matrix.scores(self._class_names)
        # NaN without any labelled pixel would let no checkpoint be the best.
        self.log("dice", self.scores.get("macro/dice", 0.0))

    def take_train_loss(self) -> float:
        """Mean loss of the batches since the last call."""
        value = _mean(self._losses["train"])
        self._losses["train"] = []
        return value

    # -- optimiser --------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> Any:
        """AdamW on what is trainable; the learning rate changes at every optimiser step."""
        spec = self._recipe.optimiser
        optimiser = torch.optim.AdamW(
            trainable_parameters(self.model), lr=spec.learning_rate, weight_decay=spec.weight_decay
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: learning_rate_factor(spec, step, self._steps_per_epoch, self._recipe.epochs)
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def learning_rate_factor(spec: OptimiserSpec, step: int, steps_per_epoch: int, epochs: int) -> float:
    """What the learning rate is multiplied by at an optimiser step, counted from 0."""
    warmup = spec.warmup_epochs * steps_per_epoch
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if spec.schedule == "milestones":
        return float(spec.gamma ** sum(step >= epoch * steps_per_epoch for epoch in spec.milestones))
    if spec.schedule == "cosine":
        done = (step - warmup) / max(1.0, epochs * steps_per_epoch - warmup)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return 1.0


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
