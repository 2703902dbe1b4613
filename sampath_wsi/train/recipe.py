"""Recipes: everything that determines a training run, as YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

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

from sampath_wsi.errors import ConfigError
from sampath_wsi.model.card import IMAGENET_MEAN, IMAGENET_STD, Architecture, Triple
from sampath_wsi.train.augment import AugmentSpec


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LossSpec(_Part):
    """Weights of the loss's terms (:mod:`sampath_wsi.train.loss`); the defaults are the BCSS recipe."""

    focal: NonNegativeFloat = 0.25
    dice: NonNegativeFloat = 0.75
    iou: NonNegativeFloat = 0.0625
    cross_entropy: NonNegativeFloat = 0.0
    reduction: Literal["mean", "sum"] = "mean"
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


class Recipe(_Part):
    """A training run: what model, how it is trained, and what its card will say."""

    name: str
    description: str = ""
    licence: str = ""
    limitations: str = ""
    architecture: Architecture
    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD
    mpp: PositiveFloat
    tile_px: PositiveInt
    overlap_px: NonNegativeInt
    start_from: str | None = None
    """A model (name or path) whose weights to begin with; fresh weights otherwise."""
    freeze_encoders: bool = True
    epochs: PositiveInt
    batch_size: PositiveInt
    accumulate: PositiveInt = 1
    """Batches whose gradients make one optimiser step."""
    tiles_per_epoch: PositiveInt | None = None
    """Tiles drawn an epoch; all of the training split if not given."""
    validate_every: PositiveInt = 1
    """Epochs between validations; ``epochs`` is a multiple of it, so that the last epoch is validated."""
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    loss: LossSpec = LossSpec()
    optimiser: OptimiserSpec = OptimiserSpec()
    augment: AugmentSpec = AugmentSpec()
    train_split: str = "train"
    val_split: str = "val"

    @model_validator(mode="after")
    def _ends_with_a_validation(self) -> Self:
        if self.epochs % self.validate_every:
            raise ValueError(f"epochs {self.epochs} is not a multiple of validate_every {self.validate_every}")
        return self


def read_recipe(path: str | Path) -> Recipe:
    """Read a recipe.

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
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ConfigError(f"the recipe {path}: {where}: {first['msg']}", "Correct this key.") from error
