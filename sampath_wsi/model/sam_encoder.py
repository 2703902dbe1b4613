"""SAM's image encoder of any size, cut before its neck, on segment-anything's ``ImageEncoderViT``."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

import sampath_wsi.model.torchvision_compat  # noqa: F401

# isort: split
from segment_anything.modeling import ImageEncoderViT
from segment_anything.modeling.common import LayerNorm2d

from sampath_wsi.model.attention import DecomposedAttention
from sampath_wsi.model.card import SamEncoderSpec


def build_sam_encoder(spec: SamEncoderSpec, image_size: int) -> Any:
    """An ``ImageEncoderViT`` with fused attention and without its neck, freshly initialised.

    Parameters
    ----------
    spec
        Its shape.
    image_size
        Side of the input in pixels.

    Returns
    -------
    A module that maps ``(B, 3, S, S)`` to ``(B, embed_dim, S/16, S/16)``.
    """
    encoder = build_public_encoder(spec, image_size)
    encoder.neck = nn.Identity()
    fuse_attention(encoder)
    encoder.apply(_initialise)
    nn.init.trunc_normal_(encoder.pos_embed, std=0.02)
    return encoder


def build_public_encoder(spec: SamEncoderSpec, image_size: int, out_channels: int = 256) -> Any:
    """segment-anything's own ``ImageEncoderViT`` of this shape, neck included, as that library initialises it."""
    return ImageEncoderViT(
        img_size=image_size,
        patch_size=spec.patch,
        embed_dim=spec.embed_dim,
        depth=spec.depth,
        num_heads=spec.heads,
        mlp_ratio=4,
        out_chans=out_channels,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        qkv_bias=True,
        use_rel_pos=True,
        window_size=spec.window,
        global_attn_indexes=spec.global_blocks,
    )


def build_neck(in_channels: int, out_channels: int) -> nn.Sequential:
    """SAM's neck, which is also SAM-Path's fusion: 1x1 convolution, norm, 3x3 convolution, norm."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False),
        LayerNorm2d(out_channels),
        nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False),
        LayerNorm2d(out_channels),
    )


def fuse_attention(encoder: Any) -> None:
    """Replace the attention of every block of an ``ImageEncoderViT``, keeping its parameters."""
    for block in encoder.blocks:
        block.attn = DecomposedAttention(block.attn)


def resize_sam_positions(state: dict[str, torch.Tensor], reference: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Fit the position embeddings of an encoder's state to a model of another image size.

    Absolute embeddings are resized bicubically and relative ones linearly, the latter as segment-anything itself does
    where sizes differ. Tensors that fit already are returned as they are.

    Parameters
    ----------
    state
        State of an ``ImageEncoderViT``.
    reference
        State of the encoder to be filled; only shapes are looked at.
    """
    return {key: _resized(key, tensor, reference.get(key)) for key, tensor in state.items()}


def _resized(key: str, tensor: torch.Tensor, wanted: torch.Tensor | None) -> torch.Tensor:
    if wanted is None or tensor.shape == wanted.shape or tensor.shape[-1] != wanted.shape[-1]:
        return tensor
    if key == "pos_embed":
        size = tuple(wanted.shape[1:3])
        resized = F.interpolate(tensor.float().permute(0, 3, 1, 2), size, mode="bicubic", align_corners=False)
        return resized.permute(0, 2, 3, 1)
    if key.endswith(("rel_pos_h", "rel_pos_w")):
        return F.interpolate(tensor.float().t()[None], wanted.shape[0], mode="linear")[0].t()
    return tensor


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
