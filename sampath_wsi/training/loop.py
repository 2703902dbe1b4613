"""The loop of a training run: steps, validation, checkpoints and logs."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sampath_wsi.errors import ModelError, SampathError
from sampath_wsi.files import write_table
from sampath_wsi.metrics import ConfusionMatrix
from sampath_wsi.model.bundle import check_state
from sampath_wsi.model.sampath import SamPath, predict_labels, trainable_parameters, upsample_logits
from sampath_wsi.progress import Progress
from sampath_wsi.training.loss import LossTerms, sam_path_loss
from sampath_wsi.training.processes import from_every_process, mean_of_processes, raise_everywhere
from sampath_wsi.training.run import Run, read_last, write_checkpoint
from sampath_wsi.training.tiles import Batch

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

log = logging.getLogger(__name__)


@dataclass
class RunState:
    """Progress of a run; all of it is in every checkpoint.

    ``epoch``, ``batch`` (of this epoch) and ``step`` (of the optimiser) count finished ones. ``losses`` are of the
    batches of this epoch, ``scores`` those of the last validation (:meth:`ConfusionMatrix.scores`, and ``loss``),
    ``best`` is the best macro Dice so far. ``rows`` are the table, one an epoch, ``seconds`` those of training.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    losses: list[float] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict)
    best: float | None = None
    rows: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0


class TrainingLoop:
    """A model in training, in one process or one of several.

    Parameters
    ----------
    model
        What is trained, on its device; encoders that the recipe freezes must have been frozen.
    run
        How it is trained, and where the first process writes.
    rank
        The number of this process.
    progress
        Told after every batch how many of those that were left at the beginning are done.
    """

    def __init__(self, model: SamPath, run: Run, rank: int = 0, progress: Progress | None = None) -> None:
        self.model, self.state = model, RunState()
        self._run, self._recipe, self._rank, self._progress = run, run.recipe, rank, progress
        self._device = model.mean.device
        self._tiles = run.tiles(rank, self._device.type)
        self._parameters = trainable_parameters(model)
        self._optimiser = torch.optim.AdamW(self._parameters, weight_decay=run.recipe.optimiser.weight_decay)
        # Where the precision is not fp16 it does nothing.
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=run.recipe.precision == "fp16")
        self._parallel: DistributedDataParallel | None = None
        self._writer: SummaryWriter | None = None
        self._began_s = self._saved_s = time.monotonic()
        self._batches_done = 0

    def resume(self, checkpoint: Path) -> None:
        """Go on after a checkpoint as if nothing had happened.

        Raises
        ------
        ModelError
            If it cannot be read, or is of another architecture.
        """
        record, name = read_last(checkpoint), self._recipe.name
        check_state(record["weights"], self.model.state_dict(), f"{name}: the checkpoint is of another architecture")
        self.model.load_state_dict(record["weights"])
        self._optimiser.load_state_dict(record["optimiser"])
        self._scaler.load_state_dict(record["scaler"])
        self.state = RunState(**record["state"])

    def run(self) -> None:
        """Train until all epochs are done.

        Raises
        ------
        SampathError
            If a tile cannot be read.
        ModelError
            If the loss is not finite.
        """
        self._saved_s = time.monotonic()
        self._began_s = self._saved_s - self.state.seconds
        if torch.distributed.is_initialized():
            # No buffer changes in training.
            self._parallel = DistributedDataParallel(self.model, forward_sync_buffers=False)
        with self._tensorboard():
            while self.state.epoch < self._recipe.epochs:
                self._train_epoch()
                if validated := (self.state.epoch + 1) % self._recipe.validate_every == 0:
                    self._validate()
                self._end_epoch(validated)

    # -- training ---------------------------------------------------------------------------------------------

    def _train_epoch(self) -> None:
        state, batches = self.state, self._tiles.batches
        self.model.train()
        for batch in self._tiles.training(state.epoch, state.batch):
            last = state.batch + 1 == batches
            ends_step = last or (state.batch + 1) % self._recipe.accumulate == 0
            self.train_batch(batch, ends_step)
            state.batch += 1
            if ends_step:
                self._step()
            if self._progress is not None:
                self._batches_done += 1
                left = (self._recipe.epochs - state.epoch) * batches - state.batch
                self._progress(self._batches_done, self._batches_done + left, f"batches (epoch {state.epoch + 1})")
            # Between the batches of one step there are gradients, which a checkpoint does not hold; after the last
            # batch of an epoch come its validation and its own checkpoint.
            due = time.monotonic() - self._saved_s >= 60 * self._run.options.checkpoint_minutes
            if due and ends_step and not last:
                self._save()

    def train_batch(self, batch: Batch | SampathError, ends_step: bool) -> None:
        """Add the gradients of a batch.

        Parameters
        ----------
        batch
            Or the error of a tile in it, which is raised.
        ends_step
            Whether an optimiser step follows.

        Raises
        ------
        SampathError
            If a tile cannot be read.
        ModelError
            If the loss is not finite.
        """
        raise_everywhere(batch if isinstance(batch, SampathError) else None)
        assert not isinstance(batch, SampathError)
        images, labels = (tensor.to(self._device, non_blocking=True) for tensor in batch)
        # Randomness in a model (dropout, say) depends on seed and batch alone, so that a run can be resumed.
        entropy = (self._recipe.seed, self.state.epoch, self.state.batch, self._rank)
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]))
        part = self._thinned(labels)
        # With the mean over the processes the gradient is that of one process with the whole batch.
        labelled = mean_of_processes(float((part > 0).sum())) if self._recipe.loss.cross_entropy else None
        with self._parallel.no_sync() if self._parallel and not ends_step else nullcontext():
            _, terms = self.batch_loss(images, part, labelled)
            value = mean_of_processes(float(terms.total.detach()))
            if not math.isfinite(value):
                raise ModelError(
                    f"the loss is {value} in epoch {self.state.epoch + 1}, batch {self.state.batch + 1}",
                    "Lower learning_rate or set clip_norm in the recipe; the checkpoints so far are kept.",
                )
            self._scaler.scale(terms.total / self._recipe.accumulate).backward()
        self.state.losses.append(value)

    def batch_loss(self, images: Tensor, part: Tensor, labelled: float | None = None) -> tuple[Tensor, LossTerms]:
        """Compute logits and loss of images ``(B, 3, S, S)`` with labels ``(B, h, w)``, thinned out or not."""
        dtype = _DTYPES[self._recipe.precision]
        # In validation processes have different numbers of batches.
        forward = self._parallel if self._parallel is not None and self.model.training else self.model
        with torch.autocast(self._device.type, dtype) if dtype != torch.float32 else nullcontext():
            logits, iou = forward(images)
            terms = sam_path_loss(
                upsample_logits(logits, (part.shape[1], part.shape[2])),
                iou,
                part,
                self._recipe.loss,
                labelled_px=labelled,
            )
        return logits, terms

    def _thinned(self, labels: Tensor) -> Tensor:
        """Take the pixels of label maps ``(B, H, W)`` that count in the loss."""
        stride = self._recipe.loss.stride
        return labels[:, stride // 2 :: stride, stride // 2 :: stride]

    def _step(self) -> None:
        optimiser, largest_norm = self._optimiser, self._recipe.optimiser.clip_norm
        for group in optimiser.param_groups:
            group["lr"] = self._learning_rate
        self._scaler.unscale_(optimiser)
        if largest_norm is not None:
            nn.utils.clip_grad_norm_(self._parameters, largest_norm)
        self._scaler.step(optimiser)
        self._scaler.update()
        optimiser.zero_grad()
        self.state.step += 1
        self._note({"train/loss": self.state.losses[-1], "learning_rate": self._learning_rate})

    @property
    def _learning_rate(self) -> float:
        """Learning rate of the next optimiser step."""
        steps = -(-self._tiles.batches // self._recipe.accumulate)
        return self._recipe.optimiser.rate(self.state.step, steps, self._recipe.epochs)

    # -- validation -------------------------------------------------------------------------------------------

    def _validate(self) -> None:
        """Count pixels at the labels' resolution, in all processes, and keep the weights if they are the best."""
        state, classes = self.state, self._run.classes
        matrix, loss, tiles = ConfusionMatrix.empty(len(classes)), 0.0, 0
        problem: SampathError | None = None
        self.model.eval()
        with torch.inference_mode():
            for batch in self._tiles.validation():
                if isinstance(batch, SampathError):
                    # Processes do not validate in step: the others hear of it at the end.
                    problem = batch
                    break
                images, labels = (tensor.to(self._device, non_blocking=True) for tensor in batch)
                logits, terms = self.batch_loss(images, self._thinned(labels))
                predicted = predict_labels(upsample_logits(logits, (labels.shape[1], labels.shape[2])))
                matrix += ConfusionMatrix.of(labels.cpu().numpy(), predicted.cpu().numpy(), len(classes))
                loss, tiles = loss + float(terms.total) * len(labels), tiles + len(labels)
        raise_everywhere(problem)
        matrices, losses, counts = zip(*from_every_process((matrix, loss, tiles)), strict=True)
        state.scores = {"loss": sum(losses) / sum(counts)}
        state.scores |= sum(matrices, ConfusionMatrix.empty(len(classes))).scores(classes)
        self._note({f"val/{name}": value for name, value in state.scores.items()})
        # Without any labelled pixel there is no Dice; some checkpoint must be the best.
        dice = state.scores.get("macro/dice", 0.0)
        if state.best is None or dice > state.best:
            state.best = dice
            if self._rank == 0:
                write_checkpoint(self._run.best, {"weights": self.model.state_dict(), "scores": state.scores})

    # -- output ----------------------------------------------------------------------------------------------

    def _end_epoch(self, validated: bool) -> None:
        """Write the row of the epoch and its checkpoint; a resumed run goes on in the same table."""
        state = self.state
        row: dict[str, float] = {
            "epoch": state.epoch + 1,
            "step": state.step,
            "learning_rate": self._learning_rate,
            "seconds": round(time.monotonic() - self._began_s, 1),
            "train/loss": round(sum(state.losses) / len(state.losses), 6),
        }
        if validated:
            row |= {f"val/{name}": round(value, 6) for name, value in state.scores.items()}
        state.rows.append(row)
        state.epoch, state.batch, state.losses = state.epoch + 1, 0, []
        if self._rank == 0:
            write_table(self._run.table, state.rows)
            dice = f", macro Dice of the validation {row['val/macro/dice']:.4f}" if "val/macro/dice" in row else ""
            log.info("epoch %d of %d: loss %.4f%s", state.epoch, self._recipe.epochs, row["train/loss"], dice)
        self._save()

    def _save(self) -> None:
        self._saved_s = time.monotonic()
        self.state.seconds = self._saved_s - self._began_s
        if self._rank == 0:
            record = {
                "weights": self.model.state_dict(),
                "optimiser": self._optimiser.state_dict(),
                "scaler": self._scaler.state_dict(),
                "state": asdict(self.state),
            }
            write_checkpoint(self._run.last, record)

    @contextmanager
    def _tensorboard(self) -> Iterator[None]:
        """Write TensorBoard's log within the block; records after the checkpoint to resume from are hidden."""
        if self._rank:
            yield
            return
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(self._run.tensorboard), purge_step=self.state.step + 1)
        try:
            yield
        except BaseException:
            with suppress(OSError):  # the first error is the one to report
                self._writer.close()
            raise
        self._writer.close()

    def _note(self, values: dict[str, float]) -> None:
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, self.state.step)
