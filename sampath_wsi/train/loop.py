"""Training: from a recipe and prepared data to a model bundle."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import sampath_wsi.model.torchvision_compat  # noqa: F401

# isort: split
import lightning.pytorch as lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from sampath_wsi.errors import ConfigError, DataError
from sampath_wsi.files import write_json
from sampath_wsi.model.bundle import load_bundle, save_bundle
from sampath_wsi.model.sampath import SamPath, build_model
from sampath_wsi.train.callbacks import ScoreTable
from sampath_wsi.train.dataset import EpochSampler, TileDataset
from sampath_wsi.train.prepared import PreparedData, read_prepared
from sampath_wsi.train.quiet import quiet_lightning
from sampath_wsi.train.recipe import Recipe, read_recipe
from sampath_wsi.train.result import describe_machine, make_card
from sampath_wsi.train.task import SegmentationTask

_PRECISION: dict[str, Any] = {"fp32": "32-true", "bf16": "bf16-mixed"}
_RUN_NAME = "run.json"


def train(
    recipe_path: str | Path,
    data_dir: str | Path,
    out_dir: str | Path,
    *,
    resume: bool = False,
    device: str = "auto",
    threads: int | None = None,
    workers: int = 0,
    machine: str = "",
    progress: bool = False,
) -> Path:
    """Train a model.

    Parameters
    ----------
    recipe_path
        YAML of a :class:`sampath_wsi.train.recipe.Recipe`.
    data_dir
        Prepared data (:mod:`sampath_wsi.train.prepared`).
    out_dir
        Folder of the run: ``metrics.csv``, ``checkpoints/best.ckpt`` and ``last.ckpt``, and ``model/``, the bundle.
    resume
        Go on after ``checkpoints/last.ckpt`` if there is one. On a CPU in fp32 the result is that of a run that was
        never interrupted.
    device
        ``auto``, ``cpu``, ``gpu`` or another of Lightning's accelerators.
    threads
        Threads of torch on the CPU; as many as torch likes if not given.
    workers
        Processes that read and augment data beside the one that trains.
    machine
        What the card says of the machine; by default how many CPU cores or which GPU it had.
    progress
        Show a progress bar.

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
        If the loss is not finite, or the model to start from cannot be used.
    """
    recipe, data, out = read_recipe(recipe_path), read_prepared(data_dir), Path(out_dir)
    if abs(data.info.mpp - recipe.mpp) > 1e-6 * recipe.mpp:
        raise DataError(
            f"{data.folder} has {data.info.mpp} um/px, the recipe {recipe.name} wants {recipe.mpp}",
            "Prepare the data at the recipe's resolution.",
        )
    loaders = _loaders(recipe, data, workers)
    checkpoint = _claim(out, recipe, data, resume)
    if threads:
        torch.set_num_threads(threads)
    steps_per_epoch = -(-len(loaders[0]) // recipe.accumulate)
    class_names = tuple(c.name for c in data.info.classes)
    task = SegmentationTask(_begin_model(recipe, data), recipe, class_names, steps_per_epoch)
    table = ScoreTable(out / "metrics.csv")
    best = ModelCheckpoint(out / "checkpoints", "best", monitor="dice", mode="max", enable_version_counter=False)
    with quiet_lightning():
        trainer = _trainer(recipe, out, [table, best], device, progress)
        trainer.fit(task, *loaders, ckpt_path=checkpoint, weights_only=True)
        scores = _restore_best(task, trainer, best, loaders[1])
    machine = machine or describe_machine(trainer.strategy.root_device, threads)
    save_bundle(out / "model", task.model, make_card(recipe, data, scores, table.seconds, machine))
    return out / "model"


def _trainer(
    recipe: Recipe, out: Path, callbacks: list[lightning.Callback], device: str, progress: bool
) -> lightning.Trainer:
    # At the very end of an epoch, after the table has its row: a run goes on from there as if nothing had happened.
    last = ModelCheckpoint(out / "checkpoints", "last", save_on_train_epoch_end=True, enable_version_counter=False)
    return lightning.Trainer(
        accelerator=device,
        devices=1,
        precision=_PRECISION[recipe.precision],
        max_epochs=recipe.epochs,
        accumulate_grad_batches=recipe.accumulate,
        gradient_clip_val=recipe.optimiser.clip_norm,
        check_val_every_n_epoch=recipe.validate_every,
        num_sanity_val_steps=0,
        logger=False,
        callbacks=[*callbacks, last],
        enable_progress_bar=progress,
        enable_model_summary=False,
        default_root_dir=out,
    )


def _claim(out: Path, recipe: Recipe, data: PreparedData, resume: bool) -> Path | None:
    """Take a folder for this run, and find the checkpoint to go on from."""
    run = {"recipe": recipe.model_dump(mode="json"), "data": data.info.model_dump(mode="json")}
    run["data"]["samples"] = len(data.samples)
    described, checkpoint = out / _RUN_NAME, out / "checkpoints" / "last.ckpt"
    # What stopped before its first checkpoint is begun anew.
    if checkpoint.exists():
        if not resume:
            raise ConfigError(f"{out} already holds a run", "Resume it, or name another folder.")
        if not described.exists() or json.loads(described.read_text(encoding="utf-8")) != run:
            raise ConfigError(f"the run in {out} has another recipe or other data", "Name another folder.")
    write_json(described, run)
    return checkpoint if checkpoint.exists() else None


def _loaders(recipe: Recipe, data: PreparedData, workers: int) -> tuple[DataLoader[Any], DataLoader[Any]]:
    train_samples, val_samples = data.split(recipe.train_split), data.split(recipe.val_split)
    if shared := {s.group for s in train_samples} & {s.group for s in val_samples}:
        logging.getLogger(__name__).warning(
            "%d groups (such as %s) are both in training and in validation: the scores will be too good",
            len(shared),
            min(shared),
        )
    train_set = TileDataset(data, train_samples, recipe.tile_px, recipe.augment, recipe.seed)
    val_set = TileDataset(data, val_samples, recipe.tile_px)
    sampler = EpochSampler(len(train_set), recipe.seed, recipe.tiles_per_epoch)
    if len(sampler) < recipe.batch_size:
        raise DataError(
            f"an epoch has {len(sampler)} tiles, less than one batch of {recipe.batch_size}",
            "Lower batch_size or raise tiles_per_epoch in the recipe.",
        )
    return (
        DataLoader(train_set, recipe.batch_size, sampler=sampler, num_workers=workers, drop_last=True),
        DataLoader(val_set, recipe.batch_size, sampler=EpochSampler(len(val_set)), num_workers=workers),
    )


def _begin_model(recipe: Recipe, data: PreparedData) -> SamPath:
    """The model before the first step: fresh weights drawn from the recipe's seed, or those of another model."""
    torch.manual_seed(recipe.seed)
    model = build_model(recipe.architecture, len(data.info.classes), mean=recipe.mean, std=recipe.std)
    if recipe.start_from is not None:
        bundle = load_bundle(recipe.start_from)
        if bundle.card.architecture != recipe.architecture or len(bundle.card.classes) != len(data.info.classes):
            raise ConfigError(
                f"the model {recipe.start_from} has another architecture or number of classes than {recipe.name}",
                "Correct start_from or architecture in the recipe.",
            )
        model.load_state_dict(bundle.model.state_dict())
    return model.freeze_encoders() if recipe.freeze_encoders else model


def _restore_best(
    task: SegmentationTask, trainer: lightning.Trainer, best: ModelCheckpoint, val_loader: DataLoader[Any]
) -> dict[str, float]:
    """Load the best checkpoint into the task and return the scores of its validation."""
    state = torch.load(best.best_model_path, map_location="cpu", weights_only=True)
    task.load_state_dict(state["state_dict"])
    trainer.validate(task, val_loader, verbose=False)
    return {name: round(value, 4) for name, value in task.scores.items()}
