"""A pathology encoder: any plain vision transformer of timm, giving the grid of features that SAM's encoder gives."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from sampath_wsi.errors import ModelError
from sampath_wsi.model.card import PathologyEncoderSpec
from sampath_wsi.model.libraries import timm


class PathologyEncoder(nn.Module):
    """A timm vision transformer behind its own normalisation.

    Parameters
    ----------
    spec
        Which one.
    grid
        Cells of the feature grid a side. The input is resized to ``grid`` patches a side first, so that encoders
        with patches other than 16 px give the same grid.

    Raises
    ------
    ModelError
        If timm knows no such architecture, it is not a plain vision transformer, or its arguments do not fit.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, spec: PathologyEncoderSpec, grid: int) -> None:
        super().__init__()
        self.model = _build_vit(spec, grid)
        self.grid = grid
        self.input_px = grid * int(self.model.patch_embed.patch_size[0])
        self.register_buffer("mean", torch.tensor(spec.mean, device="cpu").view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std, device="cpu").view(1, 3, 1, 1), persistent=False)

    @property
    def channels(self) -> int:
        return int(self.model.embed_dim)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the features of RGB images ``(B, 3, S, S)`` in [0, 1].

        They are ``(B, channels, grid, grid)``, after the final norm, without class and register tokens.
        """
        if images.shape[-1] != self.input_px:
            images = F.interpolate(images, (self.input_px, self.input_px), mode="bilinear", align_corners=False)
        tokens: torch.Tensor = self.model.forward_features((images - self.mean) / self.std)
        patches = tokens[:, self.model.num_prefix_tokens :]
        return patches.transpose(1, 2).reshape(len(images), -1, self.grid, self.grid)


def interpolate_positions(
    pos_embed: torch.Tensor, grid: int, prefix_tokens: int, source: object = "the state"
) -> torch.Tensor:
    """Fit a position embedding to another grid as DINO (and so HIPT) does.

    Bicubic (a = -0.75) without antialiasing, with the scale factor ``(grid + 0.1) / old_grid`` taken as it is: the
    sampling points differ slightly from those of resizing to a size, and HIPT's features depend on them.

    Parameters
    ----------
    pos_embed
        ``(1, prefix_tokens + old_grid ** 2, channels)``.
    grid
        Cells a side wanted.
    prefix_tokens
        Leading rows that belong to class or register tokens; they are kept.
    source
        Where the embedding comes from, for the message.

    Raises
    ------
    ModelError
        If the rest of the rows is not a square grid.
    """
    prefix, patches = pos_embed[:, :prefix_tokens], pos_embed[:, prefix_tokens:]
    old_grid = math.isqrt(patches.shape[1])
    if old_grid**2 != patches.shape[1] or old_grid == 0:
        raise ModelError(
            f"{source}: the position embedding of {pos_embed.shape[1]} rows is not a square grid",
            "Check that the file belongs to this model.",
        )
    if old_grid == grid:
        return pos_embed
    factor = (grid + 0.1) / old_grid
    resized = F.interpolate(
        patches.float().reshape(1, old_grid, old_grid, -1).permute(0, 3, 1, 2),
        scale_factor=(factor, factor),
        mode="bicubic",
        align_corners=False,
        recompute_scale_factor=False,
    )
    return torch.cat([prefix, resized.flatten(2).transpose(1, 2).to(pos_embed.dtype)], dim=1)


def _build_vit(spec: PathologyEncoderSpec, grid: int) -> Any:
    kwargs = dict(spec.kwargs)
    if isinstance(kwargs.get("mlp_layer"), str):
        kwargs["mlp_layer"] = getattr(timm.layers, kwargs["mlp_layer"], None)
    remedy = "Name a plain vision transformer of timm, such as vit_small_patch16_224, and arguments it takes."
    if not timm.is_model(spec.name):
        raise ModelError(f"timm has no model '{spec.name}'", remedy)
    try:
        with torch.device("meta"):
            shape: Any = timm.create_model(spec.name, num_classes=0, **kwargs)
        if not _is_plain(shape):
            raise ModelError(f"timm's '{spec.name}' is not a plain vision transformer", remedy)
        kwargs["img_size"] = grid * int(shape.patch_embed.patch_size[0])
        return timm.create_model(spec.name, num_classes=0, **kwargs)
    except ModelError:
        raise
    except (AttributeError, TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise ModelError(f"timm cannot build '{spec.name}' with {spec.kwargs}: {error}", remedy) from error


def _is_plain(model: nn.Module) -> bool:
    return (
        isinstance(model, timm.models.VisionTransformer)
        and type(model.patch_embed) is timm.layers.patch_embed.PatchEmbed
        and model.pos_embed is not None
    )
