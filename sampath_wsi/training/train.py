"""Training from a recipe and prepared data to a model bundle."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import torch

from sampath_wsi import __version__
from sampath_wsi.errors import ConfigError
from sampath_wsi.machine.device import describe_machine, initialize_mkl
from sampath_wsi.model.bundle import save_bundle
from sampath_wsi.model.card import EncoderProvenance, ModelCard
from sampath_wsi.model.checkpoints import read_checkpoint
from sampath_wsi.model.sampath import SamPath
from sampath_wsi.progress import Progress
from sampath_wsi.training.loop import TrainingLoop
from sampath_wsi.training.processes import held_devices, processes_beside
from sampath_wsi.training.run import Run
from sampath_wsi.training.weights import begin_model

log = logging.getLogger(__name__)


def train(run: Run, progress: Progress | None = None) -> Path:
    """Train a model.

    A run that goes on ends, on a CPU in fp32, with the result of one that was never interrupted, bit by bit.

    Parameters
    ----------
    progress
        Told after every batch how many of those that were left at the beginning are done.

    Returns
    -------
    The folder of the model bundle.

    Raises
    ------
    ConfigError
        If there are no such devices, or they cannot compute in the recipe's precision.
    DataError
        If a tile cannot be read.
    ModelError
        If the loss is not finite, or a model or checkpoint to start from cannot be used.
    """
    recipe, options = run.recipe, run.options
    with held_devices(options.device, options.devices) as devices:
        if recipe.precision == "fp16" and devices[0].type == "cpu":
            raise ConfigError(
                f"the recipe {recipe.name} wants fp16, which a CPU cannot train in", "Use precision: bf16 or fp32."
            )
        run.claim()
        model, encoders = _begin(run, devices[0])
        machine = describe_machine(devices[0], options.devices, options.threads)
        log.info("train: recipe %s, %s, on %s", recipe.name, recipe.precision, machine)
        with processes_beside(devices, partial(_take_part, run)):
            seconds = _fit(model, run, progress=progress)
    kept = read_checkpoint(run.best if recipe.keep == "best" else run.last)
    model.load_state_dict(kept["weights"])
    scores = kept["scores"] if "scores" in kept else kept["state"]["scores"]
    save_bundle(run.model, model, _make_card(run, encoders, scores, seconds, machine))
    return run.model


def _take_part(run: Run, rank: int, device: torch.device) -> None:
    """Train in a process beside the first."""
    _fit(_begin(run, device)[0], run, rank)


def _begin(run: Run, device: torch.device) -> tuple[SamPath, tuple[EncoderProvenance, ...]]:
    if run.options.threads:
        torch.set_num_threads(run.options.threads)
    initialize_mkl()
    model, encoders = begin_model(run.recipe, run.classes)
    return model.to(device), encoders


def _fit(model: SamPath, run: Run, rank: int = 0, progress: Progress | None = None) -> float:
    """Train the model and return the seconds that it took, those before an interruption included."""
    loop = TrainingLoop(model, run, rank, progress)
    if run.checkpoint is not None:
        loop.resume(run.checkpoint)
    loop.run()
    return loop.state.seconds


def _make_card(
    run: Run, encoders: tuple[EncoderProvenance, ...], scores: dict[str, float], seconds: float, machine: str
) -> ModelCard:
    """Make the card of a model that has just been trained, with the scores of its validation."""
    recipe, data = run.recipe, run.data
    splits = {name: data.split(name) for name in (recipe.train_split, recipe.val_split)}
    counts = ", ".join(
        f"{len(samples)} tiles of {len({s.group for s in samples})} groups for {name}"
        for name, samples in splits.items()
    )
    made = {
        "seconds": round(seconds),
        "machine": machine,
        "software": {"sampath_wsi": __version__, "torch": torch.__version__},
    }
    return ModelCard(
        name=recipe.name,
        description=recipe.description,
        architecture=recipe.architecture,
        classes=data.info.classes,
        mpp=recipe.mpp,
        tile_px=recipe.tile_px,
        overlap_px=recipe.overlap_px,
        mean=recipe.mean,
        std=recipe.std,
        encoders=encoders,
        recipe={**recipe.model_dump(mode="json", exclude={"architecture", "mean", "std"}), "run": made},
        data=f"{data.info.name} ({data.info.description}): {counts}",
        scores={f"validation/{name}": round(value, 4) for name, value in scores.items()},
        licence=recipe.licence,
        limitations=recipe.limitations,
    )
