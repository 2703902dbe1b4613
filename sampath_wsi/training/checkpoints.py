"""Checkpoints of a training run: ``last.ckpt`` to go on from, ``best.ckpt`` to make the model of."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import sampath_wsi.model.torchvision_compat  # noqa: F401

# isort: split
import lightning.pytorch as lightning
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.trainer.states import TrainerFn

from sampath_wsi.errors import ModelError
from sampath_wsi.files import written_aside
from sampath_wsi.model.checkpoints import read_checkpoint
from sampath_wsi.training.sampling import RankSampler
from sampath_wsi.training.task import SegmentationTask


class SafeCheckpointIO(TorchCheckpointIO):
    """Checkpoints appear whole or not at all, and nothing in them is run when they are read."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write beside ``path`` and put it in place: whatever happens, there is always one whole checkpoint.

        Raises
        ------
        OSError
            Among others where the disk is full.
        """
        path = Path(path)
        with written_aside(path) as aside:
            try:
                with aside.open("wb") as file:
                    torch.save(checkpoint, file)
                    file.flush()
                    os.fsync(file.fileno())
            except (OSError, RuntimeError) as error:
                # torch's writer does not say which file, and what went wrong is hidden behind how it noticed.
                reason = error if isinstance(error, OSError) else error.__context__
                if not isinstance(reason, OSError):
                    raise
                raise OSError(reason.errno, reason.strerror, str(path)) from error

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint onto the CPU.

        Raises
        ------
        ModelError
            If it is damaged, or none of a training run.
        """
        remedy = "Delete it to begin the run anew, or put a copy in its place."
        try:
            record = read_checkpoint(Path(path))
        except ModelError as error:
            raise ModelError(f"{path}: the checkpoint is damaged", remedy) from error
        needed = ("state_dict", "loops", "callbacks", "optimizer_states", "pytorch-lightning_version")
        if not isinstance(record, dict) or not all(key in record for key in needed):
            raise ModelError(f"{path}: not a checkpoint that a training run can go on from", remedy)
        return record


class RunCheckpoints(Checkpoint):
    """Writes the checkpoints of a run.

    ``last.ckpt`` is written at the end of every epoch, after the table has its row, and between, after an optimiser
    step. A run goes on from either as if nothing had happened. ``best.ckpt`` holds the weights alone.

    Parameters
    ----------
    folder
        Where they go.
    sampler
        Of the training; it is told where in the epoch a resumed run begins.
    minutes
        Time between checkpoints within an epoch; 0 writes one after every optimiser step.
    """

    def __init__(self, folder: Path, sampler: RankSampler, minutes: float) -> None:
        self.best_path, self.last_path = folder / "best.ckpt", folder / "last.ckpt"
        self._sampler, self._seconds = sampler, 60 * minutes
        self._saved = time.monotonic()
        self._best: float | None = None
        self._next = (0, 0)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self._best, "next": list(self._next)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._best, self._next = state_dict["best"], tuple(state_dict["next"])
        self._sampler.begin_at(*self._next)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Between the batches of one step there are gradients, which a checkpoint does not hold; after the last batch
        # of an epoch come its validation and its own checkpoint.
        done = batch_idx + 1
        if done % trainer.accumulate_grad_batches == 0 and done < trainer.num_training_batches:
            due = time.monotonic() - self._saved >= self._seconds
            if trainer.strategy.reduce_boolean_decision(due, all=False):
                self._save(trainer, trainer.current_epoch, done)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        assert isinstance(pl_module, SegmentationTask)
        # Without any labelled pixel there is no Dice; some checkpoint must be the best.
        dice = pl_module.scores.get("macro/dice", 0.0)
        if trainer.state.fn == TrainerFn.FITTING and (self._best is None or dice > self._best):
            self._best = dice
            trainer.save_checkpoint(self.best_path, weights_only=True)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._save(trainer, trainer.current_epoch + 1, 0)

    def _save(self, trainer: lightning.Trainer, epoch: int, batch: int) -> None:
        """Write ``last.ckpt`` of a run that goes on with this batch of this epoch."""
        self._next = (epoch, batch)
        trainer.save_checkpoint(self.last_path)
        self._saved = time.monotonic()
