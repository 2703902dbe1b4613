"""What a training would do: everything checked that can be checked without computing, and nothing written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sampath_wsi.errors import DataError, ModelError
from sampath_wsi.machine.device import first_device
from sampath_wsi.model.registry import ENCODERS
from sampath_wsi.model.zoo import resolve_model
from sampath_wsi.training.begin import wanted_encoders
from sampath_wsi.training.data.prepared import PreparedData, read_prepared
from sampath_wsi.training.loaders import make_loaders
from sampath_wsi.training.recipe import Recipe, read_recipe
from sampath_wsi.training.run_folder import LAST_CHECKPOINT, claim_folder
from sampath_wsi.training.trainer import RunOptions


@dataclass(frozen=True)
class TrainingPlan:
    """A training, before it is begun.

    Attributes
    ----------
    batches, val_tiles
        Of an epoch, and of its validation.
    device
        The kind of device that it would be given.
    weights
        With which weights it begins, in words; empty if with fresh ones.
    checkpoint
        From where it goes on; None if it begins.
    """

    recipe: Recipe
    classes: tuple[str, ...]
    batches: int
    val_tiles: int
    device: str
    weights: tuple[str, ...]
    checkpoint: Path | None


def read_training(
    recipe_path: str | Path, data_dir: str | Path, splits: str | Path | None, overrides: Sequence[str]
) -> tuple[Recipe, PreparedData]:
    """A recipe and the data that it is used with.

    Raises
    ------
    ConfigError, DataError
        If one of them is wrong, or they do not fit each other.
    """
    recipe, data = read_recipe(recipe_path, overrides), read_prepared(data_dir, splits)
    if abs(data.info.mpp - recipe.mpp) > 1e-6 * recipe.mpp:
        raise DataError(
            f"{data.folder} has {data.info.mpp} um/px, the recipe {recipe.name} wants {recipe.mpp}",
            "Prepare the data at the recipe's resolution.",
        )
    return recipe, data


def plan_training(
    recipe_path: str | Path,
    data_dir: str | Path,
    out_dir: str | Path,
    *,
    splits: str | Path | None = None,
    overrides: Sequence[str] = (),
    resume: bool = False,
    options: RunOptions | None = None,
) -> TrainingPlan:
    """What :func:`sampath_wsi.training.loop.train` would do with the same arguments.

    Raises
    ------
    ConfigError, DataError, ModelError
        As it does, but for weights that are neither downloaded nor read here.
    """
    options, out = options or RunOptions(), Path(out_dir)
    recipe, data = read_training(recipe_path, data_dir, splits, overrides)
    loaders = make_loaders(recipe, data, world=options.devices)
    return TrainingPlan(
        recipe=recipe,
        classes=tuple(entry.name for entry in data.info.classes),
        batches=len(loaders.train),
        val_tiles=len(loaders.val.dataset),  # type: ignore[arg-type]
        device=first_device(options.device).type,
        weights=_weights(recipe),
        checkpoint=claim_folder(out, recipe, data, out / LAST_CHECKPOINT, resume=resume, write=False),
    )


def _weights(recipe: Recipe) -> tuple[str, ...]:
    found = []
    if recipe.start_from is not None:
        found.append(f"the weights of the model {recipe.start_from} ({resolve_model(recipe.start_from)})")
    if recipe.pretrained is not None:
        names = [name for name in wanted_encoders(recipe, recipe.pretrained) if name is not None]
        found += [f"{name} ({_place(name)})" for name in names]
    return tuple(found)


def _place(encoder: str) -> str:
    """Where an encoder's weights are, or that they are not here yet."""
    path = Path(encoder).expanduser()
    known = ENCODERS.get(encoder)
    if path.is_file():
        return str(path)
    if known is None:
        raise ModelError(
            f"{encoder}: there are no such encoder weights",
            f"Give the path of a checkpoint, or one of {', '.join(ENCODERS)}.",
        )
    here = known.cached_path.is_file()
    return str(known.cached_path) if here else f"not here yet: to be downloaded, {known.bytes / 1e6:.0f} MB"
