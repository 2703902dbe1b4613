"""What is written while a model trains: a table of the scores."""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import Any

import sampath_wsi.model.torchvision_compat  # noqa: F401

# isort: split
import lightning.pytorch as lightning

from sampath_wsi.files import written_aside
from sampath_wsi.train.task import SegmentationTask


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
        self._write()

    def _write(self) -> None:
        columns = list(dict.fromkeys(name for row in self._rows for name in row))
        with written_aside(self._path) as aside, aside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self._rows)
