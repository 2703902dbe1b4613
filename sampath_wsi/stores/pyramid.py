"""OME-Zarr 0.5 pyramids: arrays with levels, each half the one before, written block by block, and their metadata.

A block of a level makes the same place of the next levels while it is in memory, and writes whole shards of each. The
metadata tell axes, physical scale and place of every level, names and colours of labels. Positions are of pixel centres
in micrometres, and the centre of the slide's first level-0 pixel lies at 0. A change of what is written here raises the
version of the stage 'stitch'.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import zarr
from numpy.typing import DTypeLike, NDArray

from sampath_wsi.geometry import TileGrid
from sampath_wsi.probability import SCALE
from sampath_wsi.stores.provenance import Provenance
from sampath_wsi.stores.shards import Block, Shards
from sampath_wsi.stores.store import create_array

_VERSION = "0.5"
LABELS = "labels/classes"
_DARKEST_SEEN = 160
BLOCK_MAP_PX = 2048
_CHUNK_MAP_PX = 512
# A level of this size is the last.
_SMALLEST_MAP_PX = 256
# How many coarser levels a block makes besides its own.
_COARSER = 3

Window = tuple[int, int, int, int]
"""y0, x0, y1, x1: a rectangle ``[x0, x1) x [y0, y1)`` of a level."""


def level_count(height: int, width: int) -> int:
    """Return how many levels a map has, the finest included."""
    count = 1
    while max(height, width) > _SMALLEST_MAP_PX:
        height, width, count = -(-height // 2), -(-width // 2), count + 1
    return count


class Pyramid:
    """The levels of one array ``(..., y, x)``; different blocks may be written at the same time.

    Parameters
    ----------
    shape
        Of the finest level.
    halve
        From ``(..., 2 y, 2 x)`` to ``(..., y, x)``.
    """

    def __init__(
        self,
        group: zarr.Group,
        shape: tuple[int, ...],
        dtype: DTypeLike,
        halve: Callable[[Block], Block],
    ) -> None:
        *leading, height, width = shape
        self._halve = halve
        self.levels = [
            _level(group, level, (*leading, -(-height // 2**level), -(-width // 2**level)), dtype)
            for level in range(level_count(height, width))
        ]

    def windows(self, level: int) -> list[Window]:
        """Return the blocks of a level."""
        height, width = self.levels[level].shape[-2:]
        size = BLOCK_MAP_PX
        return [
            (y, x, min(y + size, height), min(x + size, width))
            for y in range(0, height, size)
            for x in range(0, width, size)
        ]

    @property
    def bases(self) -> list[int]:
        """Return the levels whose blocks must be read again, in this order, for :meth:`coarsen`."""
        return list(range(_COARSER, len(self.levels) - 1, _COARSER))

    def write(self, window: Window, block: Block) -> None:
        """Write a block of the finest level, and its reductions in the levels made with it."""
        self._write_shard(0, window, block)
        self._write_coarser(0, window, block)

    def coarsen(self, base: int, window: Window) -> None:
        """Read a block of a level, and write its reductions in the levels after it."""
        y0, x0, y1, x1 = window
        level = self.levels[base]
        leading = [slice(0, length) for length in level.shape[:-2]]
        self._write_coarser(base, window, level.read(*leading, slice(y0, y1), slice(x0, x1)))

    def _write_coarser(self, base: int, window: Window, block: Block) -> None:
        for level in range(base + 1, min(base + 1 + _COARSER, len(self.levels))):
            block = self._halve(even(block))
            self._write_shard(level, window, block)

    def _write_shard(self, level: int, window: Window, block: Block) -> None:
        row, column = window[0] // BLOCK_MAP_PX, window[1] // BLOCK_MAP_PX
        self.levels[level].write((*(0 for _ in block.shape[:-2]), row, column), block)


def _level(group: zarr.Group, level: int, shape: tuple[int, ...], dtype: DTypeLike) -> Shards:
    if str(level) in group:  # an unfinished run made it; its blocks are written again
        del group[str(level)]
    # Each block makes one shard of every level.
    shard = BLOCK_MAP_PX >> (0 if level == 0 else (level - 1) % _COARSER + 1)
    chunk = min(_CHUNK_MAP_PX, shard)
    leading = shape[:-2]
    return Shards(
        create_array(
            group,
            str(level),
            shape=shape,
            dtype=dtype,
            chunks=(*(1 for _ in leading), chunk, chunk),
            shards=(*leading, shard, shard),
            dimension_names=("c", "y", "x")[-len(shape) :],
        )
    )


def even(block: Block) -> Block:
    """Return the block with its last row and column repeated where their number is odd."""
    odd_y, odd_x = block.shape[-2] % 2, block.shape[-1] % 2
    if not odd_y and not odd_x:
        return block
    return np.pad(block, [(0, 0)] * (block.ndim - 2) + [(0, odd_y), (0, odd_x)], mode="edge")


def mean_2x2(block: Block) -> Block:
    """Return the means of every four pixels, bytes rounded to the nearest, halves up."""
    if block.dtype == np.uint8:
        return np.stack([_mean_bytes(plane) for plane in block])
    total = np.zeros((*block.shape[:-2], block.shape[-2] // 2, block.shape[-1] // 2), block.dtype)
    for y in (0, 1):
        for x in (0, 1):
            total += block[..., y::2, x::2]
    return total / np.float32(4)


def _mean_bytes(plane: NDArray[np.uint8]) -> NDArray[np.uint8]:
    # Two neighbours in a row as one number of two bytes: everything stays contiguous.
    pairs = np.ascontiguousarray(plane).view(np.uint16)
    beside = pairs & np.uint16(255)
    beside += pairs >> np.uint16(8)
    total = beside[0::2] + beside[1::2]
    total += np.uint16(2)
    total >>= np.uint16(2)
    return total.astype(np.uint8)


def mode_2x2(block: Block) -> Block:
    """Return the most frequent of four labels; the first in reading order where two tie."""
    a, b, c, d = (np.ascontiguousarray(block[y::2, x::2]) for y in (0, 1) for x in (0, 1))
    second = (b == c) | (b == d)
    rest = np.where(second, b, np.where(c == d, c, a))
    return np.where((a == b) | (a == c) | (a == d), a, rest)


def describe(group: zarr.Group, provenance: Provenance, levels: int, *, float32: bool) -> None:
    """Write the metadata of the image (``class, y, x``) and of its label image (``y, x``) into a segmentation store.

    Parameters
    ----------
    float32
        Whether probabilities are stored as floats, rather than bytes.
    """
    grid, classes = provenance.grid, provenance.classes
    most = 1 if float32 else SCALE
    group.attrs["ome"] = {
        "version": _VERSION,
        "multiscales": [_multiscale(provenance.slide.id, grid, levels, channels=True)],
        "omero": {
            "channels": [
                {
                    "label": entry.name,
                    "color": "".join(f"{value:02X}" for value in bright(entry.color)),
                    "active": True,
                    "window": {"min": 0, "max": most, "start": 0, "end": most},
                }
                for entry in classes
            ]
        },
    }
    group.require_group("labels").attrs["ome"] = {"version": _VERSION, "labels": ["classes"]}
    group.require_group(LABELS).attrs["ome"] = {
        "version": _VERSION,
        "multiscales": [_multiscale("classes", grid, levels, channels=False)],
        "image-label": {
            "colors": [
                {"label-value": value, "rgba": [*entry.color, 255]} for value, entry in enumerate(classes, start=1)
            ],
            "properties": [{"label-value": value, "class": entry.name} for value, entry in enumerate(classes, start=1)],
            "source": {"image": "../../"},
        },
    }


def bright(color: Sequence[int]) -> tuple[int, int, int]:
    """Return a class's colour for probability 1: its own, unless that is too dark to be seen on black."""
    red, green, blue = (round(value * max(1, _DARKEST_SEEN / max(*color, 1))) for value in color)
    return (red, green, blue) if any(color) else (_DARKEST_SEEN,) * 3


def _multiscale(name: str, grid: TileGrid, levels: int, *, channels: bool) -> dict[str, Any]:
    axes: list[dict[str, str]] = [{"name": "c", "type": "channel"}] if channels else []
    axes += [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"]
    one, zero = ([1.0], [0.0]) if channels else ([], [])
    datasets = []
    for level in range(levels):
        px_um = grid.mpp_map * 2**level
        place = [
            grid.region_y_level0_px * grid.mpp_y + (px_um - grid.mpp_y) / 2,
            grid.region_x_level0_px * grid.mpp_x + (px_um - grid.mpp_x) / 2,
        ]
        datasets.append(
            {
                "path": str(level),
                "coordinateTransformations": [
                    {"type": "scale", "scale": [*one, px_um, px_um]},
                    {"type": "translation", "translation": [*zero, *place]},
                ],
            }
        )
    return {"name": name, "axes": axes, "datasets": datasets, "type": "mean" if channels else "mode"}
