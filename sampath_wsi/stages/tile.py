"""Stage 1: the tiles of a slide that hold tissue, at the model's resolution, in ``tiles.zarr``.

Layout: ``rgb (tile, y, x, 3)`` uint8, one chunk a tile and several tiles a shard; ``tissue (y, x)`` uint8, the soft
tissue mask (128 or more is tissue), with its scale in the attribute ``px_level0_px``. The store is disposable.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import SimpleQueue

import numpy as np
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from sampath_wsi.errors import SlideError
from sampath_wsi.files import sha256
from sampath_wsi.geometry import TileGrid, Tiling
from sampath_wsi.machine.memory import return_freed_memory
from sampath_wsi.model.card import ModelSpec
from sampath_wsi.options import TileOptions
from sampath_wsi.progress import Progress, stepper
from sampath_wsi.slides import SlideInfo, SlideReader, inspect_slide
from sampath_wsi.stages.doubts import SlideLook, doubts_of_slide
from sampath_wsi.stores.provenance import Provenance
from sampath_wsi.stores.store import GrowingStore, growing_units, is_finished
from sampath_wsi.tissue.detection import TissueOptions
from sampath_wsi.tissue.mask import TissueMask, find_tissue

log = logging.getLogger(__name__)

_TILES_A_SHARD = 8
# Slides up to this width are read row by row; two rows then share some 100 MB of native tiles at most.
_STRIPE_LEVEL0_PX = 30_000
# The store is read once and removed: speed counts for more than size (benchmarks/tiling.py compares codecs).
_CODEC = BloscCodec(cname="lz4", clevel=1, shuffle="noshuffle", typesize=1)
# Resolutions are rounded: 0.50001 is not coarser than 0.5.
_ROUNDED = 1.001
# Bytes of a tile in the store by those in memory: tissue hardly shrinks under lz4.
_PACKED = 0.9


@dataclass(frozen=True)
class TileResult:
    """The result of stage 1."""

    grid: TileGrid
    tiles: int
    tissue_um2: float
    warnings: tuple[str, ...]
    reused: bool

    @property
    def facts(self) -> dict[str, object]:
        """Facts for the record of the stage."""
        return {
            "tiles": self.tiles,
            "grid": [self.grid.rows, self.grid.columns],
            "mpp": [self.grid.mpp_x, self.grid.mpp_y],
            "mpp_source": self.grid.mpp_source,
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True)
class TilePlan:
    """The plan of stage 1: the store that it will write, and the warnings that it will give."""

    provenance: Provenance
    mask: TissueMask
    result: TileResult


@dataclass(frozen=True)
class TileRequest:
    """A slide to be tiled, and the model that the tiles are for.

    Parameters
    ----------
    slide
        The slide, from :func:`sampath_wsi.slides.inspect_slide`.
    slide_id
        Its name in the sample sheet.
    mask_path, roi_path
        See :func:`sampath_wsi.tissue.mask.find_tissue`.
    """

    slide: SlideInfo
    slide_id: str
    model: ModelSpec
    options: TileOptions = field(default_factory=TileOptions)
    mask_path: Path | None = None
    roi_path: Path | None = None


def tile_slide(request: TileRequest, out: Path, *, threads: int = 2, progress: Progress | None = None) -> TileResult:
    """Tile a slide into a Zarr store, or go on where an earlier run with the same options stopped.

    Parameters
    ----------
    out
        The store to write (``.../tiles.zarr``).
    threads
        Readers, each with one shard in memory; they share decoded tiles.

    Raises
    ------
    SlideError, AnnotationError, ConfigError
        See :mod:`sampath_wsi.errors`; the unfinished store stays for the next run.
    """
    plan = plan_tiles(request, threads=threads, progress=progress)
    return write_tiles(request.slide, out, plan, threads=threads, progress=progress)


def check_magnification(request: TileRequest) -> None:
    """Raise SlideError for a slide that must be magnified more than its options allow."""
    finest, wanted, allowed = max(request.slide.mpp), request.model.mpp, request.options.max_magnification
    if finest > allowed * wanted * _ROUNDED:
        raise SlideError(
            f"{request.slide.path}: its finest resolution ({finest:g} um/px) is {finest / wanted:.3g} times coarser "
            f"than what the model was trained on ({wanted:g} um/px)",
            f"Check its mpp, take a model of coarser slides, or allow it: tile.max_magnification is {allowed:g}.",
        )


def plan_tiles(request: TileRequest, *, threads: int = 2, progress: Progress | None = None) -> TilePlan:
    """Find the tissue of a slide and the tiles that hold some, as :func:`tile_slide` does, and write nothing."""
    info, model, options = request.slide, request.model, request.options
    overlap = model.overlap_px if options.overlap is None else options.overlap
    check_magnification(request)
    everything = TileGrid.plan(
        slide_size_level0_px=info.size_level0_px,
        mpp=info.mpp,
        mpp_source=info.mpp_source,
        region_level0_px=info.bounds_level0_px,
        tiling=Tiling(model.mpp, model.tile_px, overlap, model.output_stride),
    )
    with SlideReader(info) as reader:
        mask = find_tissue(
            reader,
            everything,
            TissueOptions(options.tissue, options.tissue_mpp, options.min_tissue_area, options.min_tissue_hole),
            mask_path=request.mask_path,
            roi_path=request.roi_path,
            threads=threads,
            progress=progress,
        )
    grid = everything.keep(mask.tiles(everything, options.min_tissue))
    files = {"tissue_mask": request.mask_path, "roi": request.roi_path}
    inputs = {name: sha256(path) for name, path in files.items() if path is not None}
    recorded = options.model_dump(mode="json", exclude={"overlap", "max_magnification"})
    provenance = Provenance("tiles", info.describe(request.slide_id), grid, recorded, inputs)
    result = TileResult(grid, len(grid.tiles), _tissue_um2(mask, grid), tuple(_warnings(info, grid, mask)), False)
    return TilePlan(provenance, mask, result)


def write_tiles(
    info: SlideInfo, out: Path, plan: TilePlan, *, threads: int = 2, progress: Progress | None = None
) -> TileResult:
    """Write the tiles that :func:`plan_tiles` found."""
    if is_finished(out, plan.provenance):
        return replace(plan.result, reused=True)
    _check_room(out, plan.result.grid)
    with GrowingStore.begin(out, plan.provenance) as store:
        _write_mask(store, plan.mask)
        with SlideReader(info) as reader:
            _write_tiles(store, reader, plan.result.grid, threads, progress)
        _check_unchanged(store, info)
        store.finish()
    return plan.result


def _check_room(out: Path, grid: TileGrid) -> None:
    """Refuse tiles that the disk has no room for, before the first is written."""
    missing = len(grid.tiles) - finished_tiles(out, grid)
    needed = missing * 3 * grid.tile_model_px**2 * _PACKED
    folder = next(parent for parent in out.absolute().parents if parent.exists())
    if needed > (free := shutil.disk_usage(folder).free):
        raise SlideError(
            f"{out}: {missing} tiles take about {needed / 1e9:.3g} GB, and {folder} has {free / 1e9:.3g} GB free",
            "Make room, or write the results to another disk.",
        )


def _check_unchanged(store: GrowingStore, info: SlideInfo) -> None:
    """Raise an error if the slide's file changed during tiling; its tiles are unusable even if it changes back."""
    try:
        now = inspect_slide(info.path, mpp=info.mpp).fingerprint
    except SlideError as error:
        store.discard()
        raise SlideError(f"{info.path}: the slide vanished or broke while it was tiled ({error})") from error
    if now != info.fingerprint:
        store.discard()
        raise SlideError(
            f"{info.path}: the slide changed while it was tiled",
            "Run again when nothing writes to it any more; was it still being copied?",
        )


def _write_tiles(
    store: GrowingStore, reader: SlideReader, grid: TileGrid, threads: int, progress: Progress | None
) -> None:
    size = grid.tile_model_px
    shard = _tiles_a_shard(grid)
    rgb = store.array(
        "rgb",
        shape=(len(grid.tiles), size, size, 3),
        dtype=np.uint8,
        chunks=(1, size, size, 3),
        shards=(shard, size, size, 3),
        dimension_names=("tile", "y", "x", "channel"),
        codec=_CODEC,
        skip_empty=False,
    )
    missing = _in_stripes(grid, (first for first in range(0, len(grid.tiles), shard) if first not in store.done))
    for first in missing:
        boxes = [grid.tile_box_level0_px(tile) for tile in grid.tiles[first : first + shard]]
        reader.expect(boxes, (size, size))

    # Each thread reads into a block of its own, which is used again.
    blocks: SimpleQueue[NDArray[np.uint8]] = SimpleQueue()
    for _ in range(threads):
        blocks.put(np.empty((shard, size, size, 3), np.uint8))

    def write_shard(first: int) -> int:
        tiles = grid.tiles[first : first + shard]
        block = blocks.get()
        try:
            _read_tiles(reader, grid, tiles, block)
            rgb[first : first + len(tiles)] = block[: len(tiles)]
            store.mark_done(first)
        finally:
            blocks.put(block)
        return first

    count = len(grid.tiles)
    step = stepper(progress, count, "tiles", count - sum(min(shard, count - first) for first in missing))
    with ThreadPoolExecutor(threads) as pool:
        jobs = [pool.submit(write_shard, first) for first in missing]
        try:
            for job in as_completed(jobs):
                first = job.result()
                return_freed_memory()
                step(min(shard, count - first))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _tiles_a_shard(grid: TileGrid) -> int:
    # Small slides get small shards, so that every reader has some; the size follows from the grid alone.
    return max(1, min(_TILES_A_SHARD, -(-len(grid.tiles) // 8)))


def finished_tiles(out: Path, grid: TileGrid) -> int:
    """Return the number of tiles in a store that is not finished."""
    return sum(min(_tiles_a_shard(grid), len(grid.tiles) - first) for first in growing_units(out))


def _in_stripes(grid: TileGrid, shards: Iterable[int]) -> list[int]:
    """Return shards in the order of writing: row by row down one stripe of the grid, then the next stripe.

    The reader keeps the pixels that a row shares with the next one; in stripes they do not grow with the width of the
    slide.
    """
    columns = max(1, round(_STRIPE_LEVEL0_PX / (grid.step_model_px * grid.level0_px_per_model_px[0])))

    def place(first: int) -> tuple[int, int]:
        _, column = grid.row_column(grid.tiles[first])
        return column // columns, first

    return sorted(shards, key=place)


def _read_tiles(reader: SlideReader, grid: TileGrid, tiles: tuple[int, ...], block: NDArray[np.uint8]) -> None:
    size = grid.tile_model_px
    for tile, out in zip(tiles, block, strict=False):
        row, column = grid.row_column(tile)
        what = f"tile {tile} (row {row}, column {column})"
        reader.read(grid.tile_box_level0_px(tile), (size, size), what=what, out=out)


def _write_mask(store: GrowingStore, mask: TissueMask) -> None:
    values = np.rint(mask.values * 255).astype(np.uint8)
    array = store.array(
        "tissue",
        shape=values.shape,
        dtype=np.uint8,
        chunks=(512, 512),
        shards=(2048, 2048),
        dimension_names=("y", "x"),
        attributes={"px_level0_px": list(mask.px_level0_px)},
    )
    array[:] = values


def _tissue_um2(mask: TissueMask, grid: TileGrid) -> float:
    px_um2 = mask.px_level0_px[0] * grid.mpp_x * mask.px_level0_px[1] * grid.mpp_y
    return float((mask.values >= 0.5).sum()) * px_um2


def _warnings(info: SlideInfo, grid: TileGrid, mask: TissueMask) -> list[str]:
    width, height = info.bounds_level0_px[2:]
    look = SlideLook(
        side_mm=max(width * info.mpp[0], height * info.mpp[1]) / 1000,
        mpp=max(info.mpp),
        mpp_model=grid.mpp_model,
        tissue_share=mask.found_share,
        brightness=mask.brightness,
        colour=mask.colour,
    )
    return [*mask.warnings, *(["no tissue was found"] if not grid.tiles else []), *doubts_of_slide(look)]
