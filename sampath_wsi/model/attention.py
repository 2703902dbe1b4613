"""SAM's attention with decomposed relative positions, without ever holding all scores at once.

SAM adds to the score of query (y, x) and key (y', x') the products of the unscaled query with an embedding of y - y'
and one of x - x'. segment-anything materialises these sums: 12 x 4096 x 4096 floats in a global block at 1024 px.
Here the same arithmetic is handed to ``scaled_dot_product_attention`` in one of two forms, equal but for rounding:

* on the CPU without gradients, as an additive bias made for a few heads, or a part of one head's queries, at a time;
* otherwise folded into longer queries and keys, ``[q * scale, rel_h, rel_w] . [k, onehot(y'), onehot(x')]``, so that
  no bias exists at all and autograd keeps nothing of the size of the scores.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

BIAS_BYTES = 32 * 2**20
"""Upper limit of the bias held at a time (one query of one head is the least that is taken)."""
_ALIGNMENT = 8


def relative_table(rel_pos: torch.Tensor, size: int) -> torch.Tensor:
    """Embeddings by query and key position along one axis.

    Parameters
    ----------
    rel_pos
        ``(2 * size - 1, channels)``; row ``size - 1 + d`` belongs to a query ``d`` cells after the key.

    Returns
    -------
    ``(size, size, channels)``, indexed ``[query, key]``.
    """
    position = torch.arange(size, device=rel_pos.device)
    return rel_pos[position[:, None] - position[None, :] + size - 1]


def decomposed_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, table_h: torch.Tensor, table_w: torch.Tensor
) -> torch.Tensor:
    """Attention over a grid with decomposed relative positions.

    Parameters
    ----------
    q, k, v
        ``(batch, heads, rows * columns, channels)``, row-major.
    table_h, table_w
        :func:`relative_table` of the rows, ``(rows, rows, channels)``, and of the columns.

    Returns
    -------
    The shape of ``v``.
    """
    rows, columns = table_h.shape[0], table_w.shape[0]
    q_grid = q.unflatten(2, (rows, columns))
    rel_h = torch.einsum("bnhwc,hkc->bnhwk", q_grid, table_h).flatten(2, 3)
    rel_w = torch.einsum("bnhwc,wkc->bnhwk", q_grid, table_w).flatten(2, 3)
    needs_gradient = torch.is_grad_enabled() and any(t.requires_grad for t in (q, k, v, rel_h, rel_w))
    if needs_gradient or q.device.type != "cpu":
        return _attend_folded(q, k, v, rel_h, rel_w)
    return _attend_biased(q, k, v, rel_h, rel_w)


def _attend_folded(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, rel_h: torch.Tensor, rel_w: torch.Tensor
) -> torch.Tensor:
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


def _attend_biased(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, rel_h: torch.Tensor, rel_w: torch.Tensor
) -> torch.Tensor:
    batch, heads, cells, _ = q.shape
    images_at_once, heads_at_once, queries = _piece(batch, heads, cells, cells * rel_h.element_size())
    attended = torch.empty_like(q)
    # One buffer for every piece: fresh memory of this size would cost more than filling it.
    buffer = rel_h.new_empty((images_at_once, heads_at_once, queries, rel_h.shape[-1], rel_w.shape[-1]))
    for image, head in product(range(0, batch, images_at_once), range(0, heads, heads_at_once)):
        some = slice(image, image + images_at_once), slice(head, head + heads_at_once)
        for first in range(0, cells, queries):
            part = (*some, slice(first, first + queries))
            piece = attended[part].shape
            bias = buffer[: piece[0], : piece[1], : piece[2]]
            torch.add(rel_h[part].unsqueeze(-1), rel_w[part].unsqueeze(-2), out=bias)
            attended[part] = F.scaled_dot_product_attention(q[part], k[some], v[some], attn_mask=bias.flatten(-2))
    return attended


def _piece(batch: int, heads: int, cells: int, bytes_a_query: int) -> tuple[int, int, int]:
    """Images, heads and queries whose bias is held at a time.

    Rather many queries of one head than few of all: thin pieces are slow in the fused kernel.
    """
    queries = min(cells, max(1, BIAS_BYTES // bytes_a_query))
    heads_at_once = min(heads, max(1, BIAS_BYTES // (queries * bytes_a_query)))
    return min(batch, max(1, BIAS_BYTES // (heads_at_once * queries * bytes_a_query))), heads_at_once, queries


class DecomposedAttention(nn.Module):
    """Stands in for segment-anything's encoder attention: the same parameters under the same names.

    Parameters
    ----------
    attention
        The ``segment_anything.modeling.image_encoder.Attention`` whose parameters are taken over (shared, not copied).
    """

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
        table_h, table_w = relative_table(self.rel_pos_h, rows), relative_table(self.rel_pos_w, columns)
        attended = decomposed_attention(q, k, v, table_h.to(q.dtype), table_w.to(q.dtype))
        output: torch.Tensor = self.proj(attended.transpose(1, 2).reshape(batch, rows, columns, channels))
        return output
