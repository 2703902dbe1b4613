"""Stage 3: overlapping tiles of ``probabilities.zarr`` -> one map in ``segmentation.ome.zarr``.

Dask maps over the *output* chunks: each gathers the tiles that touch it, sums p * w and w, and divides. Nothing larger
than a few chunks is ever in memory, and the result depends neither on the order of the tiles nor on the chunks.

Layout (OME-Zarr 0.5): ``0``, ``1``, ... = ``probability (class, y, x)``, each level half the one before;
``labels/classes/0``, ... = ``(y, x)`` uint8 label values, 0 outside the tissue.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import dask
import numpy as np
import zarr
from dask.base import compute
from dask.callbacks import Callback
from dask.delayed import delayed
from numpy.typing import NDArray

from sampath_wsi import ome
from sampath_wsi.blend import bilinear, blend
from sampath_wsi.errors import StoreError
from sampath_wsi.geometry import TileGrid
from sampath_wsi.probability import SCALE, argmax_label, to_bytes
from sampath_wsi.progress import Progress
from sampath_wsi.store import GrowingStore, Provenance, create_array, is_finished, open_store, read_array

_CHUNK_MAP_PX = 256
_SHARD_MAP_PX = 512


@dataclass(frozen=True)
class StitchOptions:
    """``dtype`` of the stored probabilities; whether pixels outside the tissue lose their class."""

    dtype: Literal["uint8", "float32"] = "uint8"
    mask_to_tissue: bool = True


@dataclass(frozen=True)
class StitchResult:
    """Size of the map and number of pyramid levels."""

    map_size_map_px: tuple[int, int]
    levels: int
    reused: bool


def stitch(
    probabilities_path: Path,
    out: Path,
    options: StitchOptions | None = None,
    *,
    threads: int = 2,
    progress: Progress | None = None,
) -> StitchResult:
    """Blend the tiles of a probability store into an OME-Zarr pyramid.

    Parameters
    ----------
    out
        The store to write (``.../segmentation.ome.zarr``).
    threads
        Output chunks in work at once; memory grows with them, not with the slide.

    Raises
    ------
    StoreError
        If the probability store cannot be used.
    """
    options = options or StitchOptions()
    source, made_by = open_store(probabilities_path, "probabilities")
    grid = made_by.grid
    recorded = {**asdict(options), "classes": made_by.options["classes"], "model": made_by.options["model"]}
    provenance = Provenance(
        "segmentation", made_by.slide, grid, recorded, {**made_by.inputs, "probabilities": made_by.identity}
    )
    width, height = grid.map_size_map_px
    levels = len(_level_sizes(width, height))
    result = StitchResult((width, height), levels, False)
    if is_finished(out, provenance):
        return StitchResult((width, height), levels, True)
    store = GrowingStore.begin(out, provenance)
    ome.describe(store.group, provenance, recorded["classes"], levels)
    blocks = _Blocks(source, grid, options)
    with dask.config.set(scheduler="threads", num_workers=threads), _Reporting(progress, _task_count(width, height)):
        _write_pyramids(store.group, blocks, len(recorded["classes"]), levels)
    store.finish()
    return result


class _Blocks:
    """Computes blocks of the map; holds only handles of stores and the small tissue mask."""

    def __init__(self, source: zarr.Group, grid: TileGrid, options: StitchOptions) -> None:
        self.probability = read_array(source, "probability")
        tissue = read_array(source, "tissue")
        self.tissue: NDArray[np.uint8] = np.asarray(tissue[:])
        self.tissue_px_level0_px: list[float] = tissue.attrs["px_level0_px"]  # type: ignore[assignment]
        self.grid = grid
        self.options = options

    def compute(self, x0: int, y0: int, x1: int, y1: int) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """Probability in the stored type, and label values, of a map rectangle."""
        try:
            blended = blend(self.probability, self.grid, x0, y0, x1, y1)
        except (ValueError, RuntimeError, OSError) as error:
            raise StoreError(
                f"{self.probability.store_path}: damaged near map pixels x {x0}-{x1}, y {y0}-{y1}: {error}",
                "Delete the store and run inference again.",
            ) from error
        label = argmax_label(blended)
        if self.options.mask_to_tissue:
            label[~self._is_tissue(x0, y0, x1, y1)] = 0
        return (to_bytes(blended, 0) if self.options.dtype == "uint8" else blended), label

    def _is_tissue(self, x0: int, y0: int, x1: int, y1: int) -> NDArray[np.bool_]:
        scale_x, scale_y = self.grid.level0_px_per_map_px
        # Corner convention: the centre of map pixel i lies at (i + 0.5) map pixels, that of mask pixel j at j + 0.5.
        across = (np.arange(x0, x1) + 0.5) * scale_x / self.tissue_px_level0_px[0] - 0.5
        down = (np.arange(y0, y1) + 0.5) * scale_y / self.tissue_px_level0_px[1] - 0.5
        first_y, first_x = max(0, int(down[0]) - 1), max(0, int(across[0]) - 1)
        part = self.tissue[first_y : int(down[-1]) + 3, first_x : int(across[-1]) + 3].astype(np.float32)
        return bilinear(part, down - first_y, across - first_x) >= SCALE / 2


def _write_pyramids(group: zarr.Group, blocks: _Blocks, classes: int, levels: int) -> None:
    width, height = blocks.grid.map_size_map_px
    labels = group.require_group(ome.LABELS)
    probability = _level_array(group, "0", (classes, height, width), np.dtype(blocks.options.dtype))
    label = _level_array(labels, "0", (height, width), np.dtype(np.uint8))

    def write(y0: int, x0: int, y1: int, x1: int) -> None:
        values, found = blocks.compute(x0, y0, x1, y1)
        probability[:, y0:y1, x0:x1] = values
        label[y0:y1, x0:x1] = found

    _for_each_shard(label, write)
    for level in range(1, levels):
        probability = _halve(group, probability, str(level), _mean_2x2)
        label = _halve(labels, label, str(level), _mode_2x2)


def _halve(
    group: zarr.Group, source: zarr.Array[Any], name: str, reduce: Callable[[NDArray[Any]], NDArray[Any]]
) -> zarr.Array[Any]:
    """The next level of a pyramid, made from the one before, block by block."""
    height, width = source.shape[-2:]
    target = _level_array(group, name, (*source.shape[:-2], -(-height // 2), -(-width // 2)), source.dtype)

    def write(y0: int, x0: int, y1: int, x1: int) -> None:
        block = np.asarray(source[..., 2 * y0 : 2 * y1, 2 * x0 : 2 * x1])
        if block.shape[-2] % 2 or block.shape[-1] % 2:
            odd = [(0, 0)] * (block.ndim - 2) + [(0, block.shape[-2] % 2), (0, block.shape[-1] % 2)]
            block = np.pad(block, odd, mode="edge")
        target[..., y0:y1, x0:x1] = reduce(block)

    _for_each_shard(target, write)
    return target


def _for_each_shard(target: zarr.Array[Any], write: Callable[[int, int, int, int], None]) -> None:
    """Call ``write(y0, x0, y1, x1)`` for every shard of an array's last two axes, as Dask tasks."""
    height, width = target.shape[-2:]
    task = delayed(write, traverse=False)
    compute(
        [
            task(y, x, min(y + _SHARD_MAP_PX, height), min(x + _SHARD_MAP_PX, width))
            for y in range(0, height, _SHARD_MAP_PX)
            for x in range(0, width, _SHARD_MAP_PX)
        ]
    )


def _level_array(group: zarr.Group, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> zarr.Array[Any]:
    if name in group:  # an unfinished run made it; its blocks are written again
        del group[name]
    chunk, shard = ((1,), shape[:1]) if len(shape) == 3 else ((), ())
    return create_array(
        group,
        name,
        shape,
        dtype,
        (*chunk, _CHUNK_MAP_PX, _CHUNK_MAP_PX),
        (*shard, _SHARD_MAP_PX, _SHARD_MAP_PX),
        dimension_names=("c", "y", "x")[-len(shape) :],
    )


def _level_sizes(width: int, height: int) -> list[tuple[int, int]]:
    """(width, height) of every level: halved, rounded up, until one chunk holds it."""
    sizes = [(width, height)]
    while max(sizes[-1]) > _CHUNK_MAP_PX:
        sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
    return sizes


def _task_count(width: int, height: int) -> int:
    counts = [-(-w // _SHARD_MAP_PX) * -(-h // _SHARD_MAP_PX) for w, h in _level_sizes(width, height)]
    return 2 * sum(counts) - counts[0]


def _mean_2x2(block: NDArray[Any]) -> NDArray[Any]:
    is_float = block.dtype.kind == "f"
    total = np.zeros(
        (*block.shape[:-2], block.shape[-2] // 2, block.shape[-1] // 2), block.dtype if is_float else np.uint16
    )
    for y in (0, 1):
        for x in (0, 1):
            total += block[..., y::2, x::2]
    return total / np.float32(4) if is_float else ((total + 2) // 4).astype(block.dtype)


def _mode_2x2(block: NDArray[Any]) -> NDArray[Any]:
    """The most frequent of four labels; the first in reading order where two tie."""
    a, b, c, d = (block[..., y::2, x::2] for y in (0, 1) for x in (0, 1))
    second = (b == c) | (b == d)
    rest = np.where(second, b, np.where(c == d, c, a))
    return np.where((a == b) | (a == c) | (a == d), a, rest)


class _Reporting(Callback):
    """Passes Dask's finished tasks on to a progress function."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        super().__init__(posttask=self._advance)
        self._progress, self._total, self._done = progress, total, 0

    def _advance(self, key: Any, *_: Any) -> None:
        self._done += 1
        if self._progress is not None:
            self._progress(min(self._done, self._total), self._total)
