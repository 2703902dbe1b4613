"""Blending of overlapping tiles, and looking a coarse mask up at fine positions: NumPy in, NumPy out."""

from __future__ import annotations

from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from sampath_wsi.geometry import TileGrid
from sampath_wsi.probability import SCALE


def blend(probability: zarr.Array[Any], grid: TileGrid, x0: int, y0: int, x1: int, y1: int) -> NDArray[np.float32]:
    """Blend the tiles that touch the map rectangle ``[x0, x1) x [y0, y1)``.

    Each tile is weighted by a ramp that rises over its overlap, and the weighted sum is divided by the sum of the
    weights: a constant stays that constant, and classes that sum to 1 in every tile sum to 1 in the map.

    Returns
    -------
    ``(class, y, x)`` float32; zero where no tile lies.
    """
    size = grid.tile_map_px
    ramp = blending_ramp(size, size - grid.step_map_px)
    total = np.zeros((probability.shape[1], y1 - y0, x1 - x0), np.float32)
    weights = np.zeros((y1 - y0, x1 - x0), np.float32)
    for position, tile in grid.tiles_touching_map_px(x0, y0, x1, y1):
        left, top = grid.tile_corner_map_px(tile)
        ax0, ax1, ay0, ay1 = max(left, x0), min(left + size, x1), max(top, y0), min(top + size, y1)
        part = np.asarray(probability[position, :, ay0 - top : ay1 - top, ax0 - left : ax1 - left])
        weight = np.outer(ramp[ay0 - top : ay1 - top], ramp[ax0 - left : ax1 - left])
        window = slice(ay0 - y0, ay1 - y0), slice(ax0 - x0, ax1 - x0)
        total[:, *window] += part * weight
        weights[window] += weight
    np.divide(total, weights, out=total, where=weights > 0)
    if probability.dtype.kind != "f":
        total /= SCALE
    return total


def blending_ramp(size: int, overlap: int) -> NDArray[np.float32]:
    """Weights along one axis of a tile: positive everywhere, rising linearly over the overlap, 1 inside."""
    position = np.arange(size, dtype=np.float32) + 0.5
    edge = np.minimum(position, size - position)
    return np.minimum(edge / max(overlap, 1), 1.0).astype(np.float32) if overlap else np.ones(size, np.float32)


def bilinear(
    values: NDArray[np.float32], rows: NDArray[np.floating], columns: NDArray[np.floating]
) -> NDArray[np.float32]:
    """Linear interpolation on a rectangular lattice of positions, constant beyond the edge."""

    def axis(
        positions: NDArray[np.floating], size: int
    ) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
        inside = np.clip(positions, 0, size - 1)
        low = inside.astype(np.intp)
        return low, np.minimum(low + 1, size - 1), (inside - low).astype(np.float32)

    top, bottom, down = axis(rows, values.shape[0])
    left, right, across = axis(columns, values.shape[1])
    lines: NDArray[Any] = values[top] * (1 - down)[:, None] + values[bottom] * down[:, None]
    result: NDArray[Any] = lines[:, left] * (1 - across) + lines[:, right] * across
    return result.astype(np.float32, copy=False)
