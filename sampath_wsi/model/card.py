"""The card of a model: its architecture, classes, resolution, origin and limits.

A card is JSON beside the weights (see :mod:`sampath_wsi.model.bundle`). It alone says how the model is built, so
that reading it needs no deep-learning library.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from sampath_wsi.classes import TissueClass
from sampath_wsi.errors import ModelError, one_line
from sampath_wsi.stores.provenance import ModelRecord

CARD_NAME = "card.json"
WEIGHTS_NAME = "weights.safetensors"
FORMAT_VERSION: Literal[1] = 1

# Limits far beyond every model: a number beyond them would fill the memory before anything else is noticed.
Finite = Annotated[float, Field(allow_inf_nan=False)]
Spread = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Triple = tuple[Finite, Finite, Finite]
SpreadTriple = tuple[Spread, Spread, Spread]
Positive = Annotated[int, Field(gt=0, le=1 << 14)]
Natural = Annotated[int, Field(ge=0, le=1 << 14)]
Depth = Annotated[int, Field(gt=0, le=256)]

IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)
# Arguments of timm.create_model that read or fetch files.
_LOADING = ("checkpoint_path", "cache_dir")
PATCH_PX = 16
"""Side of SAM's patches; the feature grid has ``image_size / 16`` cells a side for all encoders."""
MAP_STRIDE_PX = 4
"""Input pixels (after resizing to ``image_size``) in one pixel of the decoder's map."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SamEncoderSpec(_Record):
    """The shape of a SAM image encoder (a plain ViT with windowed and global attention).

    Parameters
    ----------
    embed_dim, depth, heads
        Channels, blocks and attention heads.
    global_blocks
        Indices of the blocks with global attention; the others attend within windows.
    window
        Side of a window in patches.
    patch
        Side of a patch in pixels; segment-anything's decoder fixes it at 16.
    """

    embed_dim: Positive
    depth: Depth
    heads: Positive
    global_blocks: tuple[Natural, ...]
    window: Positive = 14
    patch: Literal[16] = 16

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.embed_dim % self.heads:
            raise ValueError(f"embed_dim {self.embed_dim} is not a multiple of heads {self.heads}")
        if any(block >= self.depth for block in self.global_blocks):
            raise ValueError(f"global_blocks {list(self.global_blocks)} name a block beyond depth {self.depth}")
        return self

    @classmethod
    def preset(cls, size: str) -> SamEncoderSpec:
        """Return the shape of a public size: ``vit_b``, ``vit_l`` or ``vit_h``.

        Raises
        ------
        ModelError
            If there is no such size.
        """
        if size not in SAM_SIZES:
            raise ModelError(f"there is no SAM encoder '{size}'", f"Choose one of {', '.join(SAM_SIZES)}.")
        return SAM_SIZES[size]


SAM_SIZES: dict[str, SamEncoderSpec] = {
    "vit_b": SamEncoderSpec(embed_dim=768, depth=12, heads=12, global_blocks=(2, 5, 8, 11)),
    "vit_l": SamEncoderSpec(embed_dim=1024, depth=24, heads=16, global_blocks=(5, 11, 17, 23)),
    "vit_h": SamEncoderSpec(embed_dim=1280, depth=32, heads=16, global_blocks=(7, 15, 23, 31)),
}


class PathologyEncoderSpec(_Record):
    """A pathology encoder: any plain vision transformer that timm can build.

    Parameters
    ----------
    name
        timm's name of the architecture, e.g. ``vit_small_patch16_224``.
    kwargs
        Further arguments of ``timm.create_model`` (JSON values; ``mlp_layer`` by the name it has in
        ``timm.layers``).
    mean, std
        What this encoder's input is normalised with (RGB in [0, 1]).
    """

    name: str
    kwargs: dict[str, Any] = {}
    mean: Triple = (0.5, 0.5, 0.5)
    std: SpreadTriple = (0.5, 0.5, 0.5)

    @field_validator("kwargs")
    @classmethod
    def _only_the_shape(cls, kwargs: dict[str, Any]) -> dict[str, Any]:
        for name in kwargs:
            if name.startswith("pretrained") or name in _LOADING:
                raise ValueError(f"'{name}' would make timm load files; a card says only how the encoder is built")
        return kwargs

    @classmethod
    def hipt(cls) -> PathologyEncoderSpec:
        """Return HIPT's first-level ViT-S/16."""
        return cls(name="vit_small_patch16_224")


class Architecture(_Record):
    """The parts that a SAM-Path model is built of; which encoders are there makes the variants of the paper's Table 1.

    Parameters
    ----------
    image_size
        Side in pixels to which every image is resized before the encoders.
    sam, pathology
        Both: SAM-Path. Only ``sam``: fine-tuned SAM with SAM's own neck. Only ``pathology``: without SAM's encoder.
    decoder_dim
        Channels of neck and decoder: 256 in the paper.
    """

    image_size: Positive = 1024
    sam: SamEncoderSpec | None = None
    pathology: PathologyEncoderSpec | None = None
    decoder_dim: Positive = 256

    @model_validator(mode="after")
    def _can_be_built(self) -> Self:
        if self.sam is None and self.pathology is None:
            raise ValueError("a model needs a SAM encoder, a pathology encoder or both")
        if self.image_size % PATCH_PX:
            raise ValueError(f"image_size {self.image_size} is not a multiple of {PATCH_PX}")
        if self.decoder_dim % 16:
            raise ValueError(f"decoder_dim {self.decoder_dim} is not a multiple of 16")
        return self

    @property
    def grid(self) -> int:
        """Cells of the feature grid a side."""
        return self.image_size // PATCH_PX

    @property
    def map_px(self) -> int:
        """Side of the decoder's map in pixels."""
        return self.image_size // MAP_STRIDE_PX


class EncoderProvenance(_Record):
    """The source of an encoder's weights."""

    name: str
    sha256: str = ""
    licence: str = ""


class ModelCard(_Record):
    """Everything about a model besides its weights.

    Parameters
    ----------
    name, description
        What the model is called and is for.
    architecture
        How it is built.
    classes
        Names and colours, in the order of the channels 1, 2, ...; channel 0 is "unlabelled".
    mpp
        Micrometres a pixel of the images it expects.
    tile_px, overlap_px
        Side and overlap of the tiles it is run on, in pixels of ``mpp``; a tile is resized to the architecture's
        ``image_size`` inside the model.
    mean, std
        What the input (RGB in [0, 1]) is normalised with before SAM's encoder.
    encoders
        Provenance of the encoders' weights.
    recipe, data, scores
        The recipe of its training, the data, and the scores that it reached.
    licence, limitations
        Permitted uses, and uses that are not advised.
    weights_sha256
        SHA-256 of the weights file beside the card; written with it.
    """

    format_version: Literal[1] = FORMAT_VERSION
    name: str
    description: str = ""
    architecture: Architecture
    classes: tuple[TissueClass, ...] = Field(min_length=1, max_length=254)
    mpp: float = Field(ge=0.01, le=100)
    tile_px: Positive
    overlap_px: Natural
    mean: Triple = IMAGENET_MEAN
    std: SpreadTriple = IMAGENET_STD
    encoders: tuple[EncoderProvenance, ...] = ()
    recipe: dict[str, object] = {}
    data: str = ""
    scores: dict[str, object] = {}
    licence: str = ""
    limitations: str = ""
    weights_sha256: str | None = None

    @model_validator(mode="after")
    def _tiles_fit(self) -> Self:
        if self.tile_px % self.architecture.map_px:
            raise ValueError(
                f"tile_px {self.tile_px} is not a multiple of the {self.architecture.map_px} map pixels a tile "
                "(architecture.image_size / 4)"
            )
        if 2 * self.overlap_px > self.tile_px or self.overlap_px % self.output_stride:
            raise ValueError(
                f"overlap_px {self.overlap_px} is not a multiple of the output stride {self.output_stride} "
                f"of at most half of tile_px {self.tile_px}"
            )
        if len({c.name for c in self.classes}) < len(self.classes):
            raise ValueError("two classes have the same name")
        return self

    @property
    def output_stride(self) -> int:
        """Pixels of a tile in one pixel of the probability map."""
        return self.tile_px // self.architecture.map_px

    @property
    def settings_sha256(self) -> str:
        """The digest of what decides about the output besides weights and classes."""
        settings = self.model_dump(mode="json", include={"architecture", "mean", "std"})
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()

    @property
    def limits(self) -> str:
        """The first sentence of its limitations, on one line, for the terminal and the table."""
        return one_line(self.limitations.split(". ")[0]).rstrip(".")

    def write(self, path: Path) -> None:
        """Write the card as JSON."""
        path.write_text(json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> ModelCard:
        """Read a card.

        Raises
        ------
        ModelError
            If the file is missing, is not JSON, or lacks or misstates a field (the first one is named).
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise ModelError(f"{path}: the model's card is missing", "Check the path of the model.") from None
        except OSError as error:
            raise ModelError(f"{path}: the model's card cannot be read ({error.strerror})") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the file"
            raise ModelError(
                f"{path}: not a valid model card: {where}: {first['msg']}", "Mend the card or get the model again."
            ) from error


@dataclass(frozen=True)
class ModelSpec:
    """A model as the stages see it: its identity, and the tiles that it expects.

    Parameters
    ----------
    classes
        In the order of its channels.
    mpp
        The resolution of the tiles that it wants, um/px.
    tile_px, overlap_px
        Their size, and the overlap that it was made for, in pixels of that resolution.
    output_stride
        Pixels of a tile in one pixel of the prediction, in each direction.
    settings_sha256
        Of a card: :attr:`ModelCard.settings_sha256`.
    """

    name: str
    weights_sha256: str
    classes: Sequence[TissueClass]
    mpp: float
    tile_px: int
    output_stride: int
    overlap_px: int = 0
    settings_sha256: str = ""

    @property
    def record(self) -> ModelRecord:
        """Return the model as stores record it."""
        return ModelRecord(
            name=self.name,
            weights_sha256=self.weights_sha256,
            classes=tuple(self.classes),
            settings_sha256=self.settings_sha256,
        )
