"""What a finished training run says of its model: the card."""

from __future__ import annotations

from importlib.metadata import version

import torch

from sampath_wsi import __version__
from sampath_wsi.model.card import EncoderProvenance, ModelCard
from sampath_wsi.training.data.prepared import PreparedData
from sampath_wsi.training.recipe import Recipe


def make_card(
    recipe: Recipe,
    data: PreparedData,
    encoders: tuple[EncoderProvenance, ...],
    scores: dict[str, float],
    seconds: float,
    machine: str,
) -> ModelCard:
    """The card of a model that has just been trained, with the scores of its validation."""
    splits = {name: data.split(name) for name in (recipe.train_split, recipe.val_split)}
    counts = ", ".join(
        f"{len(samples)} tiles of {len({s.group for s in samples})} groups for {name}"
        for name, samples in splits.items()
    )
    run = {
        "seconds": round(seconds),
        "machine": machine,
        "software": {"sampath_wsi": __version__, "torch": torch.__version__, "lightning": version("lightning")},
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
        recipe={**recipe.model_dump(mode="json", exclude={"architecture", "mean", "std"}), "run": run},
        data=f"{data.info.name} ({data.info.description}): {counts}",
        scores={f"validation/{name}": value for name, value in scores.items()},
        licence=recipe.licence,
        limitations=recipe.limitations,
    )
