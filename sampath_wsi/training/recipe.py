"""Recipes: everything that determines a training run, as YAML."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from sampath_wsi.classes import TissueClass
from sampath_wsi.errors import ConfigError
from sampath_wsi.machine.device import Precision
from sampath_wsi.model.card import IMAGENET_MEAN, IMAGENET_STD, Architecture, ModelCard, Triple
from sampath_wsi.model.zoo import template_card
from sampath_wsi.options import parse_setting
from sampath_wsi.training.augment import AugmentSpec

_ANY_CLASSES = (TissueClass(name="any", color=(0, 0, 0)),)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LossSpec(_Part):
    """Weights of the loss's terms (:mod:`sampath_wsi.training.loss`); the defaults are the BCSS recipe.

    The paper's alpha is ``focal``, with ``dice`` = 1 - alpha, and its beta is ``iou``.
    """

    focal: NonNegativeFloat = 0.25
    dice: NonNegativeFloat = 0.75
    iou: NonNegativeFloat = 0.0625
    cross_entropy: NonNegativeFloat = 0.0
    reduction: Literal["mean", "sum"] = "mean"
    """Over the classes: ``mean`` as in the authors' code, ``sum`` as in equation 3 of the paper."""
    stride: PositiveInt = 1
    """The loss is taken on every n-th pixel; 1 as the authors do, 4 at the decoder's own resolution."""


class OptimiserSpec(_Part):
    """AdamW and its learning rate over time."""

    learning_rate: PositiveFloat = 1e-4
    weight_decay: NonNegativeFloat = 1e-2
    warmup_epochs: NonNegativeFloat = 1.0
    """The learning rate rises linearly from 0 over this many epochs."""
    schedule: Literal["milestones", "cosine", "constant"] = "milestones"
    milestones: tuple[PositiveInt, ...] = ()
    """Epochs at which the learning rate is multiplied by ``gamma``."""
    gamma: PositiveFloat = 0.1
    clip_norm: PositiveFloat | None = None
    """Largest norm of the gradient."""

    def rate(self, step: int, steps_per_epoch: int, epochs: int) -> float:
        """Return the learning rate at an optimiser step, counted from 0."""
        warmup, factor = self.warmup_epochs * steps_per_epoch, 1.0
        if step < warmup:
            factor = (step + 1) / (warmup + 1)
        elif self.schedule == "milestones":
            factor = self.gamma ** sum(step >= epoch * steps_per_epoch for epoch in self.milestones)
        elif self.schedule == "cosine":
            done = (step - warmup) / max(1.0, epochs * steps_per_epoch - warmup)
            factor = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
        return self.learning_rate * factor


class PretrainedSpec(_Part):
    """Checkpoints that the encoders start from (:func:`sampath_wsi.model.pretrained.load_pretrained`).

    A path, a name of the registry (``sam_vit_b``), ``auto`` for the public weights that fit the architecture, or null
    for fresh weights. SAM's checkpoint also fills the decoder; an architecture without a pathology encoder needs no
    weights for one, and the value here is ignored.
    """

    sam: str | None = None
    pathology: str | None = None
    trust: bool = False
    """Accept checkpoints that hold other objects than weights; these are left out, not run."""


class Recipe(_Part):
    """A training run: the model, its training, and the text of its card."""

    name: str
    description: str = ""
    licence: str = ""
    limitations: str = ""
    architecture: Architecture
    """In YAML also the name of one of the paper's models (:mod:`sampath_wsi.model.zoo`)."""
    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD
    mpp: PositiveFloat
    tile_px: PositiveInt
    overlap_px: NonNegativeInt
    start_from: str | None = None
    """A model (name or path) whose weights to begin with; fresh weights otherwise."""
    pretrained: PretrainedSpec | None = None
    freeze_encoders: bool = True
    epochs: PositiveInt
    batch_size: PositiveInt
    """Tiles of a batch, on all devices together."""
    accumulate: PositiveInt = 1
    """Batches whose gradients make one optimiser step."""
    tiles_per_epoch: PositiveInt | None = None
    """Tiles drawn an epoch; all of the training split if not given."""
    validate_every: PositiveInt = 1
    """Epochs between validations; ``epochs`` is a multiple of it, so that the last epoch is validated."""
    keep: Literal["best", "last"] = "best"
    """The epoch that becomes the model: the one with the best macro Dice of the validation, or the last one."""
    precision: Precision = "fp32"
    """Precision of the encoders; neck, decoder and loss always compute in fp32."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    loss: LossSpec = LossSpec()
    optimiser: OptimiserSpec = OptimiserSpec()
    augment: AugmentSpec = AugmentSpec()
    train_split: str = "train"
    val_split: str = "val"

    @model_validator(mode="after")
    def _card_is_possible(self) -> Self:
        """Refuse before the training what the model's card would refuse after it."""
        try:
            ModelCard(
                name=self.name,
                architecture=self.architecture,
                classes=_ANY_CLASSES,
                mpp=self.mpp,
                tile_px=self.tile_px,
                overlap_px=self.overlap_px,
            )
        except ValidationError as error:
            raise ValueError(_reason(error)) from None
        return self

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.start_from is not None and self.pretrained is not None:
            raise ValueError("start_from and pretrained exclude each other")
        if self.epochs % self.validate_every:
            raise ValueError(f"epochs {self.epochs} is not a multiple of validate_every {self.validate_every}")
        return self


def read_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Parameters
    ----------
    path
        A YAML file.
    overrides
        Keys to set otherwise than the file: see :func:`with_overrides`.

    Raises
    ------
    ConfigError
        Naming the file and the key that is missing, unknown or wrong.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"the recipe {path} cannot be read ({error.strerror})", "Check the path.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"the recipe {path} is not valid YAML ({error})", "Correct the file.") from error
    if not isinstance(content, dict):
        raise ConfigError(f"the recipe {path} is not a mapping of keys", "Correct the file.")
    try:
        return Recipe.model_validate(with_overrides(content, overrides))
    except ValidationError as error:
        given = f" (with {' '.join(overrides)})" if overrides else ""
        raise ConfigError(f"the recipe {path}{given}: {_reason(error)}", "Correct it there.") from error


def _reason(error: ValidationError) -> str:
    """Return the first key that is wrong, if it is one alone, and why."""
    first = error.errors()[0]
    return ": ".join([*filter(None, [".".join(map(str, first["loc"]))]), first["msg"].removeprefix("Value error, ")])


def with_overrides(content: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return the content of a recipe with some keys set, its architecture spelled out if it is a template's name.

    Parameters
    ----------
    content
        Of the YAML file; it is not changed.
    overrides
        ``key=value`` in the order in which they take effect; parts of a key are joined with dots, and the value is YAML
        (``null`` takes a part away). Whether a key exists is for the recipe to say.

    Raises
    ------
    ConfigError
        If an override is not of this form, or a part of its key is no mapping.
    ModelError
        If there is no template of the architecture's name.
    """
    content = deepcopy(content)
    _spell_out(content)
    for override in overrides:
        (*above, key), value = parse_setting(override, example="loss.focal=0.5")
        section = content
        for part in above:
            if section.get(part) is None:
                section[part] = {}
            section = section[part]
            if not isinstance(section, dict):
                raise ConfigError(f"the override '{override}': {part} is no mapping", "Correct the key.")
        section[key] = value
        _spell_out(content)
    return content


def _spell_out(content: dict[str, object]) -> None:
    if isinstance(name := content.get("architecture"), str):
        content["architecture"] = template_card(name).architecture.model_dump(mode="json")
