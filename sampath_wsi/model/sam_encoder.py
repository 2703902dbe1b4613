"""SAM's image encoder, cut before its neck: segment-anything's, with attention that never holds all scores at once.

SAM adds to the score of query (y, x) and key (y', x') the products of the unscaled query with an embedding of y - y'
and one of x - x'. segment-anything materialises these sums: 12 x 4096 x 4096 floats in a global block at 1024 px.
Here the same arithmetic is handed to ``scaled_dot_product_attention`` in one of two forms, equal but for rounding:

* on the CPU without gradients, as an additive bias made for a few heads, or some of one head's queries, at a time;
* otherwise folded into longer queries and keys, ``[q * scale, rel_h, rel_w] . [k, onehot(y'), onehot(x')]``, so that
  no bias exists at all and autograd keeps nothing of the size of the scores.
"""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from sampath_wsi.model.card import SamEncoderSpec
from sampath_wsi.model.libraries import segment_anything

BIAS_BYTES = 32 * 2**20
"""Upper limit of the bias held at a time (one query of one head is the least that is taken)."""
_ALIGNMENT = 8


def build_sam_encoder(spec: SamEncoderSpec, image_size: int) -> Any:
    """Build an ``ImageEncoderViT`` with decomposed attention and without its neck, freshly initialised.

    Parameters
    ----------
    image_size
        Side of the input in pixels.

    Returns
    -------
    A module that maps ``(B, 3, S, S)`` to ``(B, embed_dim, S/16, S/16)``.
    """
    encoder = build_public_encoder(spec, image_size)
    encoder.neck = nn.Identity()
    decompose_attention(encoder)
    for module in encoder.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
    nn.init.trunc_normal_(encoder.pos_embed, std=0.02)
    return encoder


def build_public_encoder(spec: SamEncoderSpec, image_size: int, out_channels: int = 256) -> Any:
    """Build segment-anything's own ``ImageEncoderViT`` of this shape, neck included."""
    return segment_anything.modeling.ImageEncoderViT(
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
    """Build SAM's neck, which is also SAM-Path's fusion: 1x1 convolution, norm, 3x3 convolution, norm."""
    norm = segment_anything.modeling.common.LayerNorm2d
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False),
        norm(out_channels),
        nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False),
        norm(out_channels),
    )


def decompose_attention(encoder: Any) -> None:
    """Replace the attention of every block of an ``ImageEncoderViT``, keeping its parameters."""
    for block in encoder.blocks:
        block.attn = DecomposedAttention(block.attn)


def resize_sam_positions(state: dict[str, torch.Tensor], reference: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Fit the position embeddings in the state of an ``ImageEncoderViT`` to one of another image size.

    Absolute embeddings are resized bicubically and relative ones linearly, the latter as segment-anything itself does
    where sizes differ. Tensors that fit already are returned as they are; of ``reference`` only shapes are looked at.
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


class DecomposedAttention(nn.Module):
    """The attention of one block, over the parameters of a segment-anything ``Attention`` (shared, not copied)."""

    rel_pos_h: nn.Parameter
    rel_pos_w: nn.Parameter

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.heads: int = attention.num_heads
        self.qkv: nn.Linear = attention.qkv
        self.proj: nn.Linear = attention.proj
        self.rel_pos_h = attention.rel_pos_h
        self.rel_pos_w = attention.rel_pos_w

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attend over ``(batch, rows, columns, channels)``; the same shape is returned."""
        batch, rows, columns, channels = x.shape
        qkv = self.qkv(x).view(batch, rows * columns, 3, self.heads, channels // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        rel_h, rel_w = relative_scores(q, self.rel_pos_h, self.rel_pos_w, (rows, columns))
        needs_gradient = torch.is_grad_enabled() and any(t.requires_grad for t in (qkv, rel_h, rel_w))
        attend = attend_folded if needs_gradient or q.device.type != "cpu" else attend_biased
        attended = attend(q, k, v, rel_h, rel_w)
        output: torch.Tensor = self.proj(attended.transpose(1, 2).reshape(batch, rows, columns, channels))
        return output


def relative_scores(
    q: torch.Tensor, rel_pos_h: torch.Tensor, rel_pos_w: torch.Tensor, grid: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the terms that relative positions add to the scores of each query.

    Parameters
    ----------
    q
        ``(batch, heads, rows * columns, channels)``, row-major.
    rel_pos_h, rel_pos_w
        ``(2 * size - 1, channels)``; row ``size - 1 + d`` is the embedding of a query ``d`` cells after the key.
    grid
        ``(rows, columns)``.

    Returns
    -------
    ``(batch, heads, rows * columns, rows)``, by the key's row, and ``(..., columns)``, by the key's column.
    """
    tables = []
    for embedding, size in zip((rel_pos_h, rel_pos_w), grid, strict=True):
        position = torch.arange(size, device=embedding.device)
        tables.append(embedding[position[:, None] - position[None, :] + size - 1].to(q.dtype))
    q_grid = q.unflatten(2, grid)
    rel_h = torch.einsum("bnhwc,hkc->bnhwk", q_grid, tables[0]).flatten(2, 3)
    return rel_h, torch.einsum("bnhwc,wkc->bnhwk", q_grid, tables[1]).flatten(2, 3)


def attend_folded(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, rel_h: torch.Tensor, rel_w: torch.Tensor
) -> torch.Tensor:
    """Attend with the :func:`relative_scores` folded into longer queries and keys."""
    rows, columns, channels = rel_h.shape[-1], rel_w.shape[-1], q.shape[-1]
    padding = -(channels + rows + columns) % _ALIGNMENT
    cell = torch.arange(rows * columns, device=q.device)
    places = torch.cat([F.one_hot(cell // columns, rows), F.one_hot(cell % columns, columns)], dim=-1).to(k.dtype)
    long_q = F.pad(torch.cat([q * channels**-0.5, rel_h, rel_w], dim=-1), (0, padding))
    long_k = F.pad(torch.cat([k, places.expand(*k.shape[:2], -1, -1)], dim=-1), (0, padding))
    if q.device.type != "cuda":
        # The CPU's fused kernel, which keeps no scores for the backward pass, wants values as long as the keys.
        v = F.pad(v, (0, long_k.shape[-1] - channels))
    return F.scaled_dot_product_attention(long_q, long_k, v, scale=1.0)[..., :channels]


def attend_biased(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    rel_h: torch.Tensor,
    rel_w: torch.Tensor,
    *,
    bias_bytes: int = BIAS_BYTES,
) -> torch.Tensor:
    """Attend with the sum of the :func:`relative_scores` as a bias, of which at most ``bias_bytes`` exist at a time."""
    batch, heads, cells, _ = q.shape
    # Rather many queries of one head than few of all: thin blocks are slow in the fused kernel.
    fitting = max(1, bias_bytes // (cells * rel_h.element_size()))
    queries = min(cells, fitting)
    heads_at_once = min(heads, max(1, fitting // queries))
    images_at_once = min(batch, max(1, fitting // (heads_at_once * queries)))
    attended = torch.empty_like(q)
    # One buffer for every block: fresh memory of this size would cost more than filling it.
    buffer = rel_h.new_empty((images_at_once, heads_at_once, queries, rel_h.shape[-1], rel_w.shape[-1]))
    for image, head in product(range(0, batch, images_at_once), range(0, heads, heads_at_once)):
        some = slice(image, image + images_at_once), slice(head, head + heads_at_once)
        for first in range(0, cells, queries):
            block = (*some, slice(first, first + queries))
            size = attended[block].shape
            bias = buffer[: size[0], : size[1], : size[2]]
            torch.add(rel_h[block].unsqueeze(-1), rel_w[block].unsqueeze(-2), out=bias)
            attended[block] = F.scaled_dot_product_attention(q[block], k[some], v[some], attn_mask=bias.flatten(-2))
    return attended
