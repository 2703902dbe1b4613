"""The training step, the validation step and the optimiser, for Lightning."""

from __future__ import annotations

import math
from typing import Any

import sampath_wsi.model.torchvision_compat  # noqa: F401

# isort: split
import lightning.pytorch as lightning
import numpy as np
import torch
from torch import Tensor

from sampath_wsi.errors import ModelError, SampathError
from sampath_wsi.metrics import ConfusionMatrix
from sampath_wsi.model.bundle import check_state
from sampath_wsi.model.sampath import SamPath, predict_labels, trainable_parameters, upsample_logits
from sampath_wsi.training.loaders import Batch
from sampath_wsi.training.loss import LossTerms, sam_path_loss
from sampath_wsi.training.processes import from_every_process, mean_of_processes, raise_everywhere
from sampath_wsi.training.recipe import Recipe
from sampath_wsi.training.schedule import learning_rate_factor


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
        self._train_losses: list[float] = []
        self._begin_validation()
        self.scores: dict[str, float] = {}

    # -- training ---------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch | SampathError, batch_index: int) -> Tensor:
        """The loss of a batch.

        Raises
        ------
        SampathError
            The batch itself, if it is the error of a tile that cannot be read.
        ModelError
            If the loss is not finite.
        """
        raise_everywhere(batch if isinstance(batch, SampathError) else None)
        assert not isinstance(batch, SampathError)
        self._seed_step(batch_index)
        part = self._thinned(batch[1])
        # With the mean over the processes the gradient is that of one process with the whole batch.
        labelled = mean_of_processes(float((part > 0).sum())) if self._recipe.loss.cross_entropy else None
        _, terms = self._loss(batch[0], part, labelled)
        value = mean_of_processes(float(terms.total.detach()))
        if not math.isfinite(value):
            raise ModelError(
                f"the loss is {value} in epoch {self.current_epoch + 1}, batch {batch_index + 1}",
                "Lower learning_rate or set clip_norm in the recipe; the checkpoints so far are kept.",
            )
        self._train_losses.append(value)
        return terms.total

    def _seed_step(self, batch_index: int) -> None:
        """What is random in a model (dropout, say) depends on seed and step alone, so that a run can be resumed."""
        entropy = (self._recipe.seed, self.current_epoch, batch_index, self.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]))

    def _thinned(self, labels: Tensor) -> Tensor:
        """The pixels of label maps ``(B, H, W)`` that the loss is taken on."""
        stride = self._recipe.loss.stride
        return labels[:, stride // 2 :: stride, stride // 2 :: stride]

    def _loss(self, images: Tensor, part: Tensor, labelled: float | None = None) -> tuple[Tensor, LossTerms]:
        spec = self._recipe.loss
        logits, iou = self.model(images)
        terms = sam_path_loss(
            upsample_logits(logits, (part.shape[1], part.shape[2])),
            iou,
            part,
            focal_weight=spec.focal,
            dice_weight=spec.dice,
            iou_weight=spec.iou,
            cross_entropy_weight=spec.cross_entropy,
            reduction=spec.reduction,
            labelled_px=labelled,
        )
        return logits, terms

    @property
    def last_train_loss(self) -> float:
        """Loss of the last batch."""
        return self._train_losses[-1]

    def take_train_loss(self) -> float:
        """Mean loss of the batches since the last call."""
        losses, self._train_losses = self._train_losses, []
        return sum(losses) / len(losses)

    # -- validation -------------------------------------------------------------------------------------------

    def _begin_validation(self) -> None:
        self._matrix = ConfusionMatrix.empty(len(self._class_names))
        self._val_loss = np.zeros(2)  # sum over tiles, number of tiles
        self._problem: SampathError | None = None

    def on_validation_epoch_start(self) -> None:
        self._begin_validation()

    def validation_step(self, batch: Batch | SampathError, batch_index: int) -> None:
        """Count the pixels of a batch at the labels' resolution."""
        if isinstance(batch, SampathError):
            # Processes do not validate in step: the others hear of it at the end.
            self._problem = self._problem or batch
            return
        images, labels = batch
        logits, terms = self._loss(images, self._thinned(labels))
        predicted = predict_labels(upsample_logits(logits, (labels.shape[1], labels.shape[2])))
        self._matrix += ConfusionMatrix.of(labels.cpu().numpy(), predicted.cpu().numpy(), len(self._class_names))
        self._val_loss += float(terms.total) * len(labels), len(labels)

    def on_validation_epoch_end(self) -> None:
        """Join what the processes counted.

        Raises
        ------
        SampathError
            If a tile could not be read.
        """
        raise_everywhere(self._problem)
        counted = from_every_process((self._matrix, self._val_loss))
        matrix = sum((part for part, _ in counted), ConfusionMatrix.empty(len(self._class_names)))
        total, tiles = np.sum([loss for _, loss in counted], axis=0)
        self.scores = {"loss": float(total / tiles)} | matrix.scores(self._class_names)

    # -- checkpoints ------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["train_losses"] = list(self._train_losses)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the losses of an unfinished epoch.

        Raises
        ------
        ModelError
            If the checkpoint is of another architecture.
        """
        check_state(
            checkpoint["state_dict"],
            self.state_dict(),
            f"{self._recipe.name}: the checkpoint is of another architecture",
        )
        self._train_losses = list(checkpoint["train_losses"])

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
