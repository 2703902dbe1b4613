"""Stage 3: overlapping tiles of ``probabilities.zarr`` -> one map in ``segmentation.ome.zarr``.

Dask maps over blocks of the *output*: each gathers the tiles that touch it, copies what lies in one tile alone, and
where tiles overlap sums p * w and w, and divides. A block writes its own shards of several levels of the pyramid, so
that hardly anything is read again. Nothing larger than a few blocks is ever in memory, and the result depends neither
on the order of the tiles nor on blocks and chunks.

Layout (OME-Zarr 0.5): ``0``, ``1``, ... = ``probability (class, y, x)``, each level half the one before;
``labels/classes/0``, ... = ``(y, x)`` uint8 label values, 0 outside the tissue.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import zarr
from numpy.typing import DTypeLike, NDArray

from sampath_wsi.geometry import TileGrid
from sampath_wsi.options import StitchOptions
from sampath_wsi.probability import SCALE, argmax_label, to_bytes
from sampath_wsi.progress import Progress, stepper
from sampath_wsi.stages.stitch.blend import at_least, blend, inside_tile, pieces
from sampath_wsi.stages.stitch.compute import Call, compute, connected
from sampath_wsi.stores.provenance import Provenance
from sampath_wsi.stores.pyramid import LABELS, Pyramid, Window, describe, level_count, mean_2x2, mode_2x2
from sampath_wsi.stores.shards import Block, Shards, check_complete, read_whole
from sampath_wsi.stores.store import GrowingStore, is_finished, open_input, read_array

_MASK_MAP_PX = 128


@dataclass(frozen=True)
class StitchResult:
    """Size of the map and number of pyramid levels."""

    map_size_map_px: tuple[int, int]
    levels: int
    reused: bool

    @property
    def facts(self) -> dict[str, object]:
        """Facts for the record of the stage."""
        return {"map_size_map_px": list(self.map_size_map_px), "levels": self.levels}


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
        Blocks of the map in work at once; memory grows with them, not with the slide. With ``options.dask`` the workers
        of that scheduler compute in their place: they see both stores at the same paths.

    Raises
    ------
    StoreError
        If the probability store cannot be used or is damaged, or another process writes ``out``.
    ConfigError
        If the scheduler cannot be reached or its workers do not fit; see :mod:`sampath_wsi.stages.stitch.compute`.
    """
    options = options or StitchOptions()
    if options.dask is not None:  # workers have working folders of their own
        probabilities_path, out = probabilities_path.absolute(), out.absolute()
    source, made_by = open_input(probabilities_path, "probabilities")
    grid, provenance = made_by.grid, plan_segmentation(made_by, options)
    width, height = grid.map_size_map_px
    levels = level_count(height, width)
    result = StitchResult((width, height), levels, is_finished(out, provenance))
    if result.reused:
        return result
    with GrowingStore.begin(out, provenance) as store:
        describe(store.group, provenance, levels, float32=options.dtype == "float32")
        with connected(options.dask) as client:
            whole = _Map(store.group, _Blocks(source, grid, options), len(provenance.classes))
            passes = whole.passes()
            step = stepper(progress, sum(map(len, passes)), "blocks")
            for calls in passes:
                compute(whole, calls, step, threads, client)
        store.record_files()
        store.finish()
    return result


def plan_segmentation(probabilities: Provenance, options: StitchOptions) -> Provenance:
    """Return the provenance of the store that :func:`stitch` makes from a probability store."""
    return probabilities.followed_by("segmentation", options.model_dump(mode="json", exclude={"dask"}))


class _TileRows:
    """The tiles of a block by their position in the store, each read once: a whole row of tiles at a time.

    The last two rows that were asked for stay in memory.
    """

    def __init__(self, probability: Shards, grid: TileGrid, touching: list[tuple[int, int]]) -> None:
        self._probability = probability
        self._grid = grid
        self._rows: dict[int, tuple[int, Block]] = {}
        # Tiles of a row that follow each other on the slide follow each other in the store.
        self._positions = {
            row: [position for position, _ in tiles] for row, tiles in groupby(touching, lambda t: t[1] // grid.columns)
        }

    def __getitem__(self, position: int, /) -> Block:
        row, _ = self._grid.row_column(self._grid.tiles[position])
        if row not in self._rows:
            self._rows.pop(row - 2, None)
            first, *_, end = *self._positions[row], self._positions[row][-1] + 1
            self._rows[row] = first, self._read(first, end)
        first, tiles = self._rows[row]
        found: Block = tiles[position - first]
        return found

    def _read(self, first: int, end: int) -> Block:
        return self._probability.read(slice(first, end), *(slice(0, n) for n in self._probability.shape[1:]))


class _Blocks:
    """Computes blocks of the map; holds only handles of stores and the small tissue mask."""

    def __init__(self, source: zarr.Group, grid: TileGrid, options: StitchOptions) -> None:
        probability, tissue = read_array(source, "probability"), read_array(source, "tissue")
        check_complete(probability)
        self.probability = Shards(probability)
        self.tissue: NDArray[np.uint8] = read_whole(tissue)
        self.tissue_px_level0_px: list[float] = tissue.attrs["px_level0_px"]  # type: ignore[assignment]
        self.grid = grid
        self.options = options

    def compute(self, window: Window) -> tuple[Block, NDArray[np.uint8]] | None:
        """Return probability in the stored type and label values of a block of the map; None where no tile lies."""
        y0, x0, y1, x1 = window
        touching = self.grid.tiles_touching_map_px(x0, y0, x1, y1)
        if not touching:
            return None
        values = np.zeros((self.probability.shape[1], y1 - y0, x1 - x0), self.options.dtype)
        label = np.zeros((y1 - y0, x1 - x0), np.uint8)
        tiles = _TileRows(self.probability, self.grid, touching)
        for left, top, right, bottom in pieces(self.grid, x0, y0, x1, y1):
            part = slice(top - y0, bottom - y0), slice(left - x0, right - x0)
            self._fill(values[:, *part], label[part], tiles, left, top, right, bottom)
        if self.options.mask_to_tissue:
            self._mask_to_tissue(label, x0, y0)
        return values, label

    def _fill(
        self, values: Block, label: NDArray[np.uint8], tiles: _TileRows, x0: int, y0: int, x1: int, y1: int
    ) -> None:
        """Fill in probability and label of one piece; pixels in a single tile are copied as they are."""
        touching = self.grid.tiles_touching_map_px(x0, y0, x1, y1)
        if len(touching) > 1:
            found = blend(tiles, self.grid, x0, y0, x1, y1)
        elif touching:
            position, tile = touching[0]
            left, top = self.grid.tile_corner_map_px(tile)
            rows, columns = inside_tile(self.grid, tile, x0, y0, x1, y1)
            found = tiles[position][:, rows, columns]
            part = (
                slice(rows.start + top - y0, rows.stop + top - y0),
                slice(columns.start + left - x0, columns.stop + left - x0),
            )
            values, label = values[:, *part], label[part]
        else:
            return
        label[:] = argmax_label(found)
        values[:] = _as_stored(found, values.dtype)

    def _mask_to_tissue(self, label: NDArray[np.uint8], x0: int, y0: int) -> None:
        """Take the class of pixels outside the tissue, in parts of which most are all inside or all outside."""
        scale_x, scale_y = self.grid.level0_px_per_map_px
        height, width = label.shape
        # Corner convention: the centre of map pixel i lies at (i + 0.5) map pixels, that of mask pixel j at j + 0.5.
        across = (np.arange(x0, x0 + width) + 0.5) * scale_x / self.tissue_px_level0_px[0] - 0.5
        down = (np.arange(y0, y0 + height) + 0.5) * scale_y / self.tissue_px_level0_px[1] - 0.5
        for y in range(0, height, _MASK_MAP_PX):
            for x in range(0, width, _MASK_MAP_PX):
                rows, columns = slice(y, y + _MASK_MAP_PX), slice(x, x + _MASK_MAP_PX)
                label[rows, columns] *= at_least(self.tissue, down[rows], across[columns], SCALE / 2)


def _as_stored(found: Block, dtype: DTypeLike) -> Block:
    if found.dtype == dtype:
        return found
    if dtype == np.uint8:
        stored: Block = to_bytes(found, 0)
        return stored
    return found.astype(dtype) / SCALE


class _Map:
    """Writes the map's levels block by block; it is sent to workers, so everything in it can be pickled."""

    def __init__(self, group: zarr.Group, blocks: _Blocks, classes: int) -> None:
        width, height = blocks.grid.map_size_map_px
        dtype = np.dtype(blocks.options.dtype)
        self.blocks = blocks
        self.probability = Pyramid(group, (classes, height, width), dtype, mean_2x2)
        self.labels = Pyramid(group.require_group(LABELS), (height, width), np.dtype(np.uint8), mode_2x2)

    def write(self, window: Window) -> None:
        """Write a block of the finest level, and its part of the next levels."""
        if found := self.blocks.compute(window):
            self.probability.write(window, found[0])
            self.labels.write(window, found[1])

    def coarsen(self, base: int, window: Window) -> None:
        """Make a block of the levels after one that is written, from the level itself."""
        self.probability.coarsen(base, window)
        self.labels.coarsen(base, window)

    def passes(self) -> list[list[Call]]:
        """Return the calls that write everything, one list after the other."""
        windows = self.labels.windows
        coarser: list[list[Call]] = [[(_Map.coarsen, k, window) for window in windows(k)] for k in self.labels.bases]
        return [[(_Map.write, window) for window in windows(0)], *coarser]
