"""The weights that a training begins with."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path

import torch

from sampath_wsi.errors import ConfigError, ModelError
from sampath_wsi.model.bundle import Bundle, load_bundle
from sampath_wsi.model.card import EncoderProvenance
from sampath_wsi.model.pretrained import default_encoders, load_pretrained
from sampath_wsi.model.sampath import SamPath
from sampath_wsi.model.zoo import ENCODERS, resolve_model
from sampath_wsi.training.recipe import PretrainedSpec, Recipe

log = logging.getLogger(__name__)


# Parts of the decoder with a row, or a network, for SAM's own mask, "unlabelled" and every class, in this order.
_ROWS = re.compile(r"mask_decoder\.(mask_tokens|iou_prediction_head\.layers\.2)\..+")
_NETWORKS = re.compile(r"(mask_decoder\.output_hypernetworks_mlps\.)(\d+)(\..+)")
_BEFORE_CLASSES = 2


def begin_model(recipe: Recipe, classes: Sequence[str]) -> tuple[SamPath, tuple[EncoderProvenance, ...]]:
    """Build a model with fresh weights drawn from the recipe's seed, those of another model, or pretrained encoders.

    Of another model everything is taken over; its classes by name, so that a model for other classes can be begun with
    it: classes that it does not know begin with fresh prompts.

    Parameters
    ----------
    classes
        The names of the classes, in the order of their labels.

    Returns
    -------
    The model, its encoders frozen if the recipe says so, and where its encoders' weights come from.

    Raises
    ------
    ConfigError
        If the model to start from is another one than the recipe's, or no public encoder fits where one is wanted.
    ModelError
        If weights cannot be had or do not fit.
    """
    torch.manual_seed(recipe.seed)
    model = SamPath(recipe.architecture, len(classes), mean=recipe.mean, std=recipe.std)
    encoders: tuple[EncoderProvenance, ...] = ()
    if recipe.start_from is not None:
        bundle = load_bundle(recipe.start_from)
        if bundle.card.architecture != recipe.architecture:
            raise ConfigError(
                f"the model {recipe.start_from} has another architecture than {recipe.name}",
                "Correct start_from or architecture in the recipe.",
            )
        _take_over(model, classes, bundle)
        encoders = bundle.card.encoders
    if recipe.pretrained is not None:
        sam, pathology = wanted_encoders(recipe, recipe.pretrained)
        encoders = load_pretrained(model, sam=sam, pathology=pathology, trust=recipe.pretrained.trust)
    if recipe.freeze_encoders:
        if not encoders and recipe.start_from is None:
            log.warning("the encoders of %s are frozen, but their weights were never trained", recipe.name)
        model.freeze_encoders()
    return model, encoders


def _take_over(model: SamPath, classes: Sequence[str], bundle: Bundle) -> None:
    known = [entry.name for entry in bundle.card.classes]
    fresh = [name for name in classes if name not in known]
    if fresh:
        log.info("the model begins with %s; classes new to it: %s", bundle.card.name, ", ".join(fresh))
    # Of each of our places that the other model has too, which place it is there.
    places = {place: place for place in range(_BEFORE_CLASSES)}
    places |= {
        classes.index(name) + _BEFORE_CLASSES: place
        for place, name in enumerate(known, _BEFORE_CLASSES)
        if name in classes
    }
    state, source = model.state_dict(), bundle.model.state_dict()
    for key, tensor in state.items():
        if _ROWS.fullmatch(key):
            tensor[list(places)] = source[key][list(places.values())]
        elif network := _NETWORKS.fullmatch(key):
            if int(network[2]) in places:
                tensor.copy_(source[f"{network[1]}{places[int(network[2])]}{network[3]}"])
        else:
            tensor.copy_(source[key])


def wanted_encoders(recipe: Recipe, spec: PretrainedSpec) -> tuple[str | None, str | None]:
    """Return the weights to load for (SAM, pathology): ``auto`` resolved, None for an absent pathology encoder.

    Raises
    ------
    ConfigError
        If no public weights fit the architecture where they are wanted.
    """
    public_sam, public_pathology = default_encoders(recipe.architecture)
    has_pathology = recipe.architecture.pathology is not None
    for key, wanted, public in (("sam", spec.sam, public_sam), ("pathology", spec.pathology, public_pathology)):
        if wanted == "auto" and public is None and (key == "sam" or has_pathology):
            raise ConfigError(
                f"the recipe {recipe.name}: pretrained.{key}: no public weights fit this architecture",
                "Give the path of a checkpoint, or null for fresh weights.",
            )
    pathology = public_pathology if spec.pathology == "auto" else spec.pathology
    if not has_pathology and spec.pathology is not None:
        log.info("the architecture has no pathology encoder: pretrained.pathology is not used")
        pathology = None
    return public_sam if spec.sam == "auto" else spec.sam, pathology


def describe_weights(recipe: Recipe) -> tuple[str, ...]:
    """Describe the weights that a training begins with and their places; empty for fresh weights.

    Raises
    ------
    ConfigError, ModelError
        If a model or encoder cannot be found; nothing is downloaded.
    """
    found = []
    if recipe.start_from is not None:
        found.append(f"the weights of the model {recipe.start_from} ({resolve_model(recipe.start_from)})")
    if recipe.pretrained is not None:
        names = [name for name in wanted_encoders(recipe, recipe.pretrained) if name is not None]
        found += [f"{name} ({_place(name)})" for name in names]
    return tuple(found)


def _place(encoder: str) -> str:
    """Return the place of an encoder's weights, or that they are not here yet."""
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
