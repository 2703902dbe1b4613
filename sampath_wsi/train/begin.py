"""The model before the first step of training."""

from __future__ import annotations

import logging

import torch

from sampath_wsi.errors import ConfigError
from sampath_wsi.model.bundle import load_bundle
from sampath_wsi.model.card import EncoderProvenance
from sampath_wsi.model.pretrained import default_encoders, load_pretrained
from sampath_wsi.model.sampath import SamPath, build_model
from sampath_wsi.train.recipe import PretrainedSpec, Recipe

log = logging.getLogger(__name__)


def begin_model(recipe: Recipe, n_classes: int) -> tuple[SamPath, tuple[EncoderProvenance, ...]]:
    """Fresh weights drawn from the recipe's seed, those of another model, or those of pretrained encoders.

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
    model = build_model(recipe.architecture, n_classes, mean=recipe.mean, std=recipe.std)
    encoders: tuple[EncoderProvenance, ...] = ()
    if recipe.start_from is not None:
        bundle = load_bundle(recipe.start_from)
        if bundle.card.architecture != recipe.architecture or len(bundle.card.classes) != n_classes:
            raise ConfigError(
                f"the model {recipe.start_from} has another architecture or number of classes than {recipe.name}",
                "Correct start_from or architecture in the recipe.",
            )
        model.load_state_dict(bundle.model.state_dict())
        encoders = bundle.card.encoders
    if recipe.pretrained is not None:
        sam, pathology = _wanted_encoders(recipe, recipe.pretrained)
        encoders = load_pretrained(model, sam=sam, pathology=pathology, trust=recipe.pretrained.trust)
    if recipe.freeze_encoders:
        if not encoders and recipe.start_from is None:
            log.warning("the encoders of %s are frozen, but their weights were never trained", recipe.name)
        model.freeze_encoders()
    return model, encoders


def _wanted_encoders(recipe: Recipe, spec: PretrainedSpec) -> tuple[str | None, str | None]:
    """What to load for (SAM, pathology): `auto` resolved, and nothing for a pathology encoder that is not there."""
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
