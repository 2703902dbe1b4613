"""Training: from a recipe and prepared data to a model bundle."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sampath_wsi.model.torchvision_compat  # noqa: F401

# isort: split
import lightning.pytorch as lightning
import torch
from torch.utils.data import DataLoader

from sampath_wsi.machine.device import describe_machine, settle_arithmetic
from sampath_wsi.model.bundle import save_bundle
from sampath_wsi.model.checkpoints import read_checkpoint
from sampath_wsi.progress import Progress
from sampath_wsi.training.begin import begin_model
from sampath_wsi.training.callbacks import ProgressReport, ScoreTable, TensorBoardLog
from sampath_wsi.training.checkpoints import RunCheckpoints
from sampath_wsi.training.data.prepared import PreparedData
from sampath_wsi.training.loaders import default_workers, make_loaders
from sampath_wsi.training.plan import read_training
from sampath_wsi.training.quiet import quiet_lightning
from sampath_wsi.training.recipe import Recipe
from sampath_wsi.training.result import make_card
from sampath_wsi.training.run_folder import LAST_CHECKPOINT, claim_folder
from sampath_wsi.training.task import SegmentationTask
from sampath_wsi.training.trainer import RunOptions, held_devices, make_trainer, one_voice, this_rank

log = logging.getLogger(__name__)


def train(
    recipe_path: str | Path,
    data_dir: str | Path,
    out_dir: str | Path,
    *,
    splits: str | Path | None = None,
    overrides: Sequence[str] = (),
    resume: bool = False,
    options: RunOptions | None = None,
    progress: Progress | None = None,
) -> Path:
    """Train a model.

    Parameters
    ----------
    recipe_path
        YAML of a :class:`sampath_wsi.training.recipe.Recipe`.
    data_dir
        Prepared data (:mod:`sampath_wsi.training.data.prepared`).
    out_dir
        Folder of the run: ``metrics.csv``, ``tensorboard/``, ``checkpoints/best.ckpt`` and ``last.ckpt``, ``run.json``
        (the recipe as it was run) and ``model/``, the bundle.
    splits
        CSV with the columns sample and split, instead of the data's own split.
    overrides
        Keys of the recipe to set otherwise, such as ``loss.focal=0.5``.
    resume
        Go on after ``checkpoints/last.ckpt`` if there is one. On a CPU in fp32 the result is that of a run that was
        never interrupted, bit by bit.
    options
        How it is computed.
    progress
        Told after every batch how many of those that were left at the beginning are done.

    Returns
    -------
    The folder of the model bundle.

    Raises
    ------
    ConfigError
        If the recipe is wrong, or ``out_dir`` holds a run of another recipe or other data, or one and ``resume`` is
        not set.
    DataError
        If the data are not as they should be.
    ModelError
        If the loss is not finite, or a model or checkpoint to start from cannot be used.
    """
    options, out = options or RunOptions(), Path(out_dir)
    recipe, data = read_training(recipe_path, data_dir, splits, overrides)
    return _run(recipe, data, out, options, resume, progress)


def _run(
    recipe: Recipe, data: PreparedData, out: Path, options: RunOptions, resume: bool, progress: Progress | None
) -> Path:
    """Train on data that fit the recipe; see :func:`train`."""
    if options.threads:
        torch.set_num_threads(options.threads)
    settle_arithmetic()
    rank, world = this_rank(), options.devices
    with held_devices(options) as (kind, devices), quiet_lightning():
        workers = default_workers(kind, world) if options.workers is None else options.workers
        loaders = make_loaders(recipe, data, rank, world, workers)
        table = ScoreTable(out / "metrics.csv")
        checkpoints = RunCheckpoints((out / LAST_CHECKPOINT).parent, loaders.sampler, options.checkpoint_minutes)
        reports = [] if progress is None else [ProgressReport(progress)]
        callbacks = [TensorBoardLog(out / "tensorboard"), table, *reports, checkpoints]
        trainer = make_trainer(recipe, out, callbacks, kind, devices)
        found = claim_folder(out, recipe, data, checkpoints.last_path, resume=resume, write=rank == 0)
        names = tuple(c.name for c in data.info.classes)
        model, encoders = begin_model(recipe, names)
        task = SegmentationTask(model, recipe, names, -(-len(loaders.train) // recipe.accumulate))
        machine = options.machine or describe_machine(trainer.strategy.root_device, world, options.threads)
        log.info("train: recipe %s, %s, on %s", recipe.name, recipe.precision, machine)
        with one_voice(trainer):
            trainer.fit(task, loaders.train, loaders.val, ckpt_path=found, weights_only=True)
            kept = checkpoints.best_path if recipe.keep == "best" else checkpoints.last_path
            scores = _restore(task, trainer, kept, loaders.val)
    if rank == 0:
        save_bundle(out / "model", task.model, make_card(recipe, data, encoders, scores, table.seconds, machine))
    return out / "model"


def _restore(
    task: SegmentationTask, trainer: lightning.Trainer, checkpoint: Path, val_loader: DataLoader[Any]
) -> dict[str, float]:
    """Load a checkpoint into the task and return the scores of its validation."""
    task.load_state_dict(read_checkpoint(checkpoint)["state_dict"])
    trainer.validate(task, val_loader, verbose=False)
    return {name: round(value, 4) for name, value in task.scores.items()}
