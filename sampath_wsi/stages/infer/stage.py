"""Stage 2: ``tiles.zarr`` -> class probabilities in ``probabilities.zarr`` (:mod:`.probabilities`).

Loading, computing and writing run at the same time. Several jobs may share a slide: see :mod:`.parts`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import zarr
from numpy.typing import NDArray

from sampath_wsi.errors import ModelError
from sampath_wsi.geometry import TileGrid
from sampath_wsi.machine.stopping import deferring_stop
from sampath_wsi.progress import Progress, stepper
from sampath_wsi.stages.infer.buffers import LoadAhead, WriteBehind
from sampath_wsi.stages.infer.parts import Part, adopt_parts, held_batches, remove_parts, take_finished
from sampath_wsi.stages.infer.probabilities import batch_starts, begin_arrays, record_run
from sampath_wsi.stores.shards import check_complete
from sampath_wsi.stores.store import GrowingStore, Provenance, is_finished, open_store, read_array

Batch = tuple[NDArray[np.uint8], NDArray[np.float32]]


class PredictorLike(Protocol):
    """What stage 2 needs of a model: see :class:`sampath_wsi.stages.infer.predictor.Predictor`.

    The tiles lie in a buffer that is filled anew after the call.
    """

    def __call__(self, rgb: NDArray[np.uint8]) -> Batch: ...


@dataclass(frozen=True)
class ModelSpec:
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
        All tiles of the slide, or of the part of it that was asked for, and those that this run computed.
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

    @property
    def facts(self) -> dict[str, float]:
        """What the store keeps of it."""
        facts: dict[str, float] = {"tiles": self.tiles, "computed": self.computed}
        if self.busy is not None:
            facts |= {"seconds": round(self.seconds, 3), "device_busy": round(self.busy, 4)}
        return facts


def infer(
    tiles_path: Path,
    out: Path,
    frame: ModelSpec,
    load_predictor: Callable[[], PredictorLike],
    *,
    precision: str,
    batch: int,
    part: Part | None = None,
    progress: Progress | None = None,
) -> InferResult:
    """Run a model over a tile store, or go on where earlier runs with the same model and options stopped.

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
    part
        Compute only this part of the slide, beside ``out``; :mod:`.join` then makes ``out`` of all.

    Raises
    ------
    StoreError
        If the tile store cannot be used or is damaged, or another process writes ``out`` or the part.
    ModelError
        If the tiles were made for a model of another resolution or tile size.
    """
    tiles, made_by = open_store(tiles_path, "tiles")
    grid = made_by.grid
    _check_fit(tiles_path, grid, frame)
    provenance = plan_probabilities(made_by, frame, precision, batch)
    if (finished := is_finished(out, provenance)) and part is None:
        return InferResult(len(grid.tiles), 0, 0.0, None, True)
    with GrowingStore.begin(out if part is None else part.path(out), provenance) as store:
        probability, iou = begin_arrays(store, tiles)

        def write(first: int, result: Batch) -> None:
            probability[first : first + len(result[0])] = result[0]
            iou[first : first + len(result[1])] = result[1]
            store.mark_done(first)

        starts, done = batch_starts(provenance), store.done
        if part is None:
            adopt_parts(store)
        else:
            starts = part.of_batches(starts)
            if finished:
                take_finished(store, out, starts)
            done = held_batches(out, provenance)
        result = _fill(tiles, starts, done, batch, load_predictor, write, progress)
        record_run(store, result.facts)
        if part is None:
            store.finish()
            remove_parts(out)
    return result


def plan_probabilities(tiles: Provenance, frame: ModelSpec, precision: str, batch: int) -> Provenance:
    """What stage 2 makes of a tile store; see :func:`infer`."""
    options = {"model": frame.name, "classes": list(frame.classes), "precision": precision, "batch": batch}
    inputs = {"tiles": tiles.identity, "weights": frame.weights_sha256}
    return Provenance("probabilities", tiles.slide, tiles.grid, options, inputs)


def _fill(
    tiles: zarr.Group,
    starts: Sequence[int],
    done: set[int],
    batch: int,
    load_predictor: Callable[[], PredictorLike],
    write: Callable[[int, Batch], None],
    progress: Progress | None,
) -> InferResult:
    """Compute those of some batches that are not done."""
    rgb = read_array(tiles, "rgb")
    size = {first: min(batch, rgb.shape[0] - first) for first in starts}
    todo = [first for first in starts if first not in done]
    result = InferResult(sum(size.values()), sum(size[first] for first in todo), 0.0, None, False)
    if todo:
        check_complete(rgb)
        seconds, busy = _compute(rgb, todo, batch, result.tiles, load_predictor, write, progress)
        result = replace(result, seconds=seconds, busy=busy)
    return result


def _compute(
    rgb: zarr.Array[Any],
    todo: list[int],
    batch: int,
    count: int,
    load_predictor: Callable[[], PredictorLike],
    write: Callable[[int, Batch], None],
    progress: Progress | None,
) -> tuple[float, float]:
    """Predict batch after batch, loaded ahead and written behind; see :class:`InferResult` for what is returned."""
    done, busy_s = count - sum(min(batch, rgb.shape[0] - first) for first in todo), 0.0
    # The first batches are loaded while the model is.
    with LoadAhead(rgb, todo, batch) as loader:
        predict = load_predictor()
        step = stepper(progress, count, "tiles", done)
        begun = time.monotonic()
        with WriteBehind(write) as writer:
            for first, pixels in loader:
                with deferring_stop():
                    start = time.monotonic()
                    result = predict(pixels)
                    busy_s += time.monotonic() - start
                    writer.put(first, result)
                step(len(pixels))
            computing_s = time.monotonic() - begun
    return time.monotonic() - begun, busy_s / computing_s


def _check_fit(tiles_path: Path, grid: TileGrid, frame: ModelSpec) -> None:
    made_for = (grid.mpp_model, grid.tile_model_px, grid.output_stride)
    if made_for != (frame.mpp, frame.tile_px, frame.output_stride):
        raise ModelError(
            f"{tiles_path}: tiles of {grid.tile_model_px} px at {grid.mpp_model:g} um/px (output stride "
            f"{grid.output_stride}) do not fit the model '{frame.name}', which wants {frame.tile_px} px at "
            f"{frame.mpp:g} um/px (output stride {frame.output_stride})",
            "Tile the slide again with this model.",
        )
