"""Stage 2: ``tiles.zarr`` -> class probabilities in ``probabilities.zarr``.

Layout: ``probability (tile, class, y, x)`` uint8 (p = v / 255; the bytes of a pixel sum to 255) at the decoder's own
resolution, one chunk a tile and one shard a batch; ``iou (tile, class)`` float32, the model's own estimate;
``tissue (y, x)`` copied from the tile store; the attributes of the group ``run`` tell how the run went that finished
the store. Loading, computing and writing run at the same time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import zarr
from numpy.typing import NDArray

from sampath_wsi.errors import ModelError
from sampath_wsi.geometry import TileGrid
from sampath_wsi.pipeline import LoadAhead, WriteBehind
from sampath_wsi.progress import Progress
from sampath_wsi.shards import check_complete, read_whole
from sampath_wsi.stopping import unbroken
from sampath_wsi.store import GrowingStore, Provenance, is_finished, open_store, read_array

RUN_GROUP = "run"

Batch = tuple[NDArray[np.uint8], NDArray[np.float32]]


class PredictorLike(Protocol):
    """What stage 2 needs of a model: see :class:`sampath_wsi.predictor.Predictor`.

    The tiles lie in a buffer that is filled anew after the call.
    """

    def __call__(self, rgb: NDArray[np.uint8]) -> Batch: ...


@dataclass(frozen=True)
class ModelFrame:
    """What a model expects of tiles, and who it is; taken from its card."""

    name: str
    weights_sha256: str
    classes: tuple[dict[str, Any], ...]
    mpp: float
    tile_px: int
    output_stride: int


@dataclass(frozen=True)
class InferResult:
    """What stage 2 did.

    Parameters
    ----------
    tiles, computed
        All tiles of the slide, and those that this run computed.
    seconds
        From the first batch asked of the loader to the last one written; the model's loading is not counted.
    busy
        Share of the time, from the first batch asked of the loader to the last result handed to the writer, during
        which the device computed; None if there was nothing to compute.
    """

    tiles: int
    computed: int
    seconds: float
    busy: float | None
    reused: bool


def infer(
    tiles_path: Path,
    out: Path,
    frame: ModelFrame,
    load_predictor: Callable[[], PredictorLike],
    *,
    precision: str,
    batch: int,
    progress: Progress | None = None,
) -> InferResult:
    """Run a model over a tile store, or go on where an earlier run with the same model and options stopped.

    Parameters
    ----------
    tiles_path
        A finished tile store.
    out
        The store to write (``.../probabilities.zarr``).
    load_predictor
        Called once, and only if there is something to compute.
    precision
        Recorded with the store; the predictor holds to it.
    batch
        Tiles a batch; batches are cut by tile position, so that a resumed run computes the same ones.

    Raises
    ------
    StoreError
        If the tile store cannot be used or is damaged, or another process writes ``out``.
    ModelError
        If the tiles were made for a model of another resolution or tile size.
    """
    tiles, made_by = open_store(tiles_path, "tiles")
    grid = made_by.grid
    _check_fit(tiles_path, grid, frame)
    options = {"model": frame.name, "classes": list(frame.classes), "precision": precision, "batch": batch}
    inputs = {"tiles": made_by.identity, "weights": frame.weights_sha256}
    provenance = Provenance("probabilities", made_by.slide, grid, options, inputs)
    if is_finished(out, provenance):
        return InferResult(len(grid.tiles), 0, 0.0, None, True)
    with GrowingStore.begin(out, provenance) as store:
        result = _fill(store, tiles, load_predictor, progress)
        _record_run(store, result)
        store.finish()
    return result


def _fill(
    store: GrowingStore, tiles: zarr.Group, load_predictor: Callable[[], PredictorLike], progress: Progress | None
) -> InferResult:
    """Compute what a store lacks."""
    grid, batch = store.provenance.grid, store.provenance.options["batch"]
    probability, iou = _arrays(store, grid, len(store.provenance.options["classes"]), batch)
    _copy_tissue(tiles, store)

    def write(first: int, result: Batch) -> None:
        probability[first : first + len(result[0])] = result[0]
        iou[first : first + len(result[1])] = result[1]
        store.mark_done(first)

    count = len(grid.tiles)
    todo = [first for first in range(0, count, batch) if first not in store.done]
    result = InferResult(count, sum(min(batch, count - first) for first in todo), 0.0, None, False)
    if todo:
        rgb = read_array(tiles, "rgb")
        check_complete(rgb)
        seconds, busy = _compute(rgb, todo, batch, load_predictor, write, progress)
        result = replace(result, seconds=seconds, busy=busy)
    return result


def _compute(
    rgb: zarr.Array[Any],
    todo: list[int],
    batch: int,
    load_predictor: Callable[[], PredictorLike],
    write: Callable[[int, Batch], None],
    progress: Progress | None,
) -> tuple[float, float]:
    """Predict batch after batch, loaded ahead and written behind; see :class:`InferResult` for what is returned."""
    count, busy_s = rgb.shape[0], 0.0
    done = count - sum(min(batch, count - first) for first in todo)
    # The first batches are loaded while the model is.
    with LoadAhead(rgb, todo, batch) as loader:
        predict = load_predictor()
        begun = time.monotonic()
        with WriteBehind(write) as writer:
            for first, pixels in loader:
                with unbroken():
                    start = time.monotonic()
                    result = predict(pixels)
                    busy_s += time.monotonic() - start
                    writer.put(first, result)
                done += len(pixels)
                if progress is not None:
                    progress(done, count)
            computing_s = time.monotonic() - begun
    return time.monotonic() - begun, busy_s / computing_s


def _record_run(store: GrowingStore, result: InferResult) -> None:
    """Keep how the run went that finished the store: in a group of its own, since it differs between equal stores."""
    facts: dict[str, float] = {"tiles": result.tiles, "computed": result.computed}
    if result.busy is not None:
        facts |= {"seconds": round(result.seconds, 3), "device_busy": round(result.busy, 4)}
    store.group.create_group(RUN_GROUP, attributes=facts, overwrite=True)


def _arrays(store: GrowingStore, grid: TileGrid, classes: int, batch: int) -> tuple[zarr.Array[Any], zarr.Array[Any]]:
    size, count = grid.tile_map_px, len(grid.tiles)
    probability = store.array(
        "probability",
        shape=(count, classes, size, size),
        dtype=np.uint8,
        chunks=(1, classes, size, size),
        shards=(batch, classes, size, size),
        dimension_names=("tile", "class", "y", "x"),
    )
    iou = store.array(
        "iou",
        shape=(count, classes),
        dtype=np.float32,
        chunks=(batch, classes),
        shards=(batch, classes),
        dimension_names=("tile", "class"),
    )
    return probability, iou


def _copy_tissue(tiles: zarr.Group, store: GrowingStore) -> None:
    tissue = read_array(tiles, "tissue")
    copy = store.array(
        "tissue",
        shape=tissue.shape,
        dtype=tissue.dtype,
        chunks=tissue.chunks,
        shards=tissue.shards or tissue.chunks,
        dimension_names=("y", "x"),
        attributes=dict(tissue.attrs),
    )
    copy[:] = read_whole(tissue)


def _check_fit(tiles_path: Path, grid: TileGrid, frame: ModelFrame) -> None:
    made_for = (grid.mpp_model, grid.tile_model_px, grid.output_stride)
    if made_for != (frame.mpp, frame.tile_px, frame.output_stride):
        raise ModelError(
            f"{tiles_path}: tiles of {grid.tile_model_px} px at {grid.mpp_model:g} um/px (output stride "
            f"{grid.output_stride}) do not fit the model '{frame.name}', which wants {frame.tile_px} px at "
            f"{frame.mpp:g} um/px (output stride {frame.output_stride})",
            "Tile the slide again with this model.",
        )
