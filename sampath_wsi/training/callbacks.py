"""What is written while a model trains: a table of the scores, TensorBoard's log, and progress."""

from __future__ import annotations

import contextlib
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sampath_wsi.model.torchvision_compat  # noqa: F401

# isort: split
import lightning.pytorch as lightning

from sampath_wsi.files import write_table
from sampath_wsi.progress import Progress
from sampath_wsi.training.task import SegmentationTask

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger(__name__)


class ScoreTable(lightning.Callback):
    """Appends a row to a CSV file after every epoch; a resumed run goes on in the same table.

    Parameters
    ----------
    path
        The table. Columns: epoch, step, learning rate, seconds of training so far, mean training loss, and the scores
        of the validation, where there was one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: list[dict[str, Any]] = []
        self._began = time.monotonic()
        self._seconds_before = 0.0

    @property
    def seconds(self) -> float:
        """Seconds of training, those before an interruption included."""
        return self._seconds_before + time.monotonic() - self._began

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self._rows, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._rows, self._seconds_before = list(state_dict["rows"]), state_dict["seconds"]
        self._began = time.monotonic()

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        assert isinstance(pl_module, SegmentationTask)
        row = {
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
            "seconds": round(self.seconds, 1),
            "train/loss": round(pl_module.take_train_loss(), 6),
        }
        row |= {f"val/{name}": round(value, 6) for name, value in pl_module.scores.items()}
        pl_module.scores = {}
        self._rows.append(row)
        if trainer.is_global_zero:
            write_table(self._path, self._rows)
            dice = f", macro Dice of the validation {row['val/macro/dice']:.4f}" if "val/macro/dice" in row else ""
            log.info("epoch %d of %d: loss %.4f%s", row["epoch"], trainer.max_epochs, row["train/loss"], dice)


class TensorBoardLog(lightning.Callback):
    """Writes loss and learning rate of every optimiser step, and the scores of every validation, for TensorBoard.

    Parameters
    ----------
    folder
        Where the event files go. What an interrupted run wrote after the checkpoint that it is resumed from is hidden.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: SummaryWriter | None = None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.is_global_zero:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder), purge_step=trainer.global_step + 1)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, SegmentationTask)
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self._add(trainer, "train/loss", pl_module.last_train_loss)
            self._add(trainer, "learning_rate", trainer.optimizers[0].param_groups[0]["lr"])

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        assert isinstance(pl_module, SegmentationTask)
        for name, value in pl_module.scores.items():
            self._add(trainer, f"val/{name}", value)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer = None

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        with contextlib.suppress(OSError):  # the first error is the one to report
            self.on_train_end(trainer, pl_module)

    def _add(self, trainer: lightning.Trainer, name: str, value: float) -> None:
        if self._writer is not None:
            self._writer.add_scalar(name, value, trainer.global_step)


class ProgressReport(lightning.Callback):
    """Tells after every batch how many of those that were left at the start are done."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._done = 0

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.is_global_zero and trainer.max_epochs is not None:
            batches = int(trainer.num_training_batches)
            left = (trainer.max_epochs - trainer.current_epoch) * batches - batch_idx - 1
            self._done += 1
            self._progress(self._done, self._done + left, f"batches (epoch {trainer.current_epoch + 1})")
