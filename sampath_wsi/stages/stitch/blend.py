"""Blending of overlapping tiles, and looking a coarse mask up at fine positions: NumPy in, NumPy out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sampath_wsi.geometry import TileGrid
from sampath_wsi.probability import SCALE
from sampath_wsi.stores.shards import Block


class Tiles(Protocol):
    """Probabilities ``(class, y, x)`` of tiles by their position in the store, bytes or floats: an array, say."""

    def __getitem__(self, position: int, /) -> Block: ...


def pieces(grid: TileGrid, x0: int, y0: int, x1: int, y1: int) -> Iterator[tuple[int, int, int, int]]:
    """Cut a rectangle ``[x0, x1) x [y0, y1)`` of the map where tiles begin and end, row by row.

    Most of it then lies in single tiles. Where rows of tiles overlap, the whole width is one piece.
    """
    for top, bottom, shared in _spans(grid, y0, y1):
        for left, right, _ in [(x0, x1, True)] if shared else _spans(grid, x0, x1):
            yield left, top, right, bottom


def _spans(grid: TileGrid, begin: int, end: int) -> Iterator[tuple[int, int, bool]]:
    """Return an interval of one axis, cut into parts where tiles overlap (True) and parts where they do not."""
    step, overlap = grid.step_map_px, grid.tile_map_px - grid.step_map_px
    for corner in range(begin // step * step, end, step):
        for a, b, shared in ((corner, corner + overlap, True), (corner + overlap, corner + step, False)):
            if max(a, begin) < min(b, end):
                yield max(a, begin), min(b, end), shared


def blend(probability: Tiles, grid: TileGrid, x0: int, y0: int, x1: int, y1: int) -> NDArray[np.float32]:
    """Blend the tiles that touch the map rectangle ``[x0, x1) x [y0, y1)``, at least one.

    Each tile is weighted by a ramp that rises over its overlap, and the weighted sum is divided by the sum of the
    weights: a constant stays that constant, and classes that sum to 1 in every tile sum to 1 in the map.

    Returns
    -------
    ``(class, y, x)`` float32; zero where no tile lies.
    """
    size = grid.tile_map_px
    ramp = blending_ramp(size, size - grid.step_map_px)
    total = np.empty(0, np.float32)
    weights = np.zeros((y1 - y0, x1 - x0), np.float32)
    is_float = False
    for position, tile in grid.tiles_touching_map_px(x0, y0, x1, y1):
        values = np.asarray(probability[position])
        if not total.size:
            is_float = values.dtype.kind == "f"
            total = np.zeros((len(values), y1 - y0, x1 - x0), np.float32)
        rows, columns = inside_tile(grid, tile, x0, y0, x1, y1)
        left, top = grid.tile_corner_map_px(tile)
        down, across = top - y0, left - x0
        window = slice(rows.start + down, rows.stop + down), slice(columns.start + across, columns.stop + across)
        weight = np.outer(ramp[rows], ramp[columns])
        total[:, *window] += values[:, rows, columns] * weight
        weights[window] += weight
    np.divide(total, weights, out=total, where=weights > 0)
    if not is_float:
        total /= SCALE
    return total


def inside_tile(grid: TileGrid, tile: int, x0: int, y0: int, x1: int, y1: int) -> tuple[slice, slice]:
    """Return the rows and columns of a tile that lie in a rectangle of the map."""
    left, top = grid.tile_corner_map_px(tile)
    size = grid.tile_map_px
    return slice(max(y0 - top, 0), min(y1 - top, size)), slice(max(x0 - left, 0), min(x1 - left, size))


def blending_ramp(size: int, overlap: int) -> NDArray[np.float32]:
    """Return weights along one axis of a tile: positive everywhere, rising linearly over the overlap, 1 inside."""
    position = np.arange(size, dtype=np.float32) + 0.5
    edge = np.minimum(position, size - position)
    return np.minimum(edge / max(overlap, 1), 1.0).astype(np.float32) if overlap else np.ones(size, np.float32)


def at_least(
    values: NDArray[np.uint8], rows: NDArray[np.floating], columns: NDArray[np.floating], limit: float
) -> NDArray[np.bool_] | bool:
    """Find where a mask, interpolated on a lattice of ascending positions, reaches a limit; see :func:`bilinear`.

    Returns
    -------
    ``(rows, columns)`` booleans, or a single boolean where all are alike: then nothing is interpolated.
    """
    # Pixels of a map may lie before the mask and beyond it.
    top, left = (
        min(max(0, int(first) - 1), size - 1) for first, size in zip((rows[0], columns[0]), values.shape, strict=True)
    )
    part = values[top : max(0, int(rows[-1])) + 3, left : max(0, int(columns[-1])) + 3]
    if part.min() >= limit or part.max() < limit:
        return bool(part.flat[0] >= limit)
    return bilinear(part.astype(np.float32), rows - top, columns - left) >= limit


def bilinear(
    values: NDArray[np.float32], rows: NDArray[np.floating], columns: NDArray[np.floating]
) -> NDArray[np.float32]:
    """Return the linear interpolation on a rectangular lattice of positions, constant beyond the edge."""

    def axis(
        positions: NDArray[np.floating], size: int
    ) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
        inside = np.clip(positions, 0, size - 1)
        low = inside.astype(np.intp)
        return low, np.minimum(low + 1, size - 1), (inside - low).astype(np.float32)

    top, bottom, down = axis(rows, values.shape[0])
    left, right, across = axis(columns, values.shape[1])
    lines: Block = values[top] * (1 - down)[:, None] + values[bottom] * down[:, None]
    result: Block = lines[:, left] * (1 - across) + lines[:, right] * across
    return result.astype(np.float32, copy=False)
