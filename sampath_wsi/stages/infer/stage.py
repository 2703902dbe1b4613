"""Stage 2: ``tiles.zarr`` -> class probabilities in ``probabilities.zarr`` (:mod:`.probabilities`).

While the device computes a batch, threads load the next ones and a thread writes the one before. Memory is bounded by
what may wait: :data:`BATCHES_LOADED` batches of tiles and one result. Several jobs may share a slide: see
:mod:`.parts`.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.types import AnyArray

from sampath_wsi.errors import ModelError
from sampath_wsi.geometry import TileGrid
from sampath_wsi.machine.stopping import deferring_stop
from sampath_wsi.model.card import ModelSpec
from sampath_wsi.progress import Progress, stepper
from sampath_wsi.stages.infer.parts import Part, adopt_parts, begun_stores, held_batches, remove_parts, take_finished
from sampath_wsi.stages.infer.probabilities import batch_starts, begin_arrays, how_computed, record_run
from sampath_wsi.stores.provenance import Computed, Provenance
from sampath_wsi.stores.shards import Shards, check_complete
from sampath_wsi.stores.store import GrowingStore, is_finished, open_input, read_array

log = logging.getLogger(__name__)

BATCHES_LOADED = 3
_LOADERS = 2

Pixels = NDArray[np.uint8]
Batch = tuple[NDArray[np.uint8], NDArray[np.float32]]


class PredictorLike(Protocol):
    """A model as stage 2 uses it; see :class:`sampath_wsi.stages.infer.predictor.Predictor`.

    The tiles lie in a buffer that is filled anew after the call.
    """

    def __call__(self, rgb: NDArray[np.uint8]) -> Batch: ...


@dataclass(frozen=True)
class ReadyModel:
    """A model and the device that it will run on.

    Attributes
    ----------
    spec
        What it expects of tiles, and who it is.
    device
        The device, for people.
    precision
        The precision that was asked for: ``auto`` is one.
    computed
        Precision and batch that the device would choose for it.
    load
        Loads the weights for a precision (fp32, bf16, fp16); called once, and only if there is something to compute.
    """

    spec: ModelSpec
    device: str
    precision: str
    computed: Computed
    load: Callable[[str], PredictorLike]


@dataclass(frozen=True)
class InferResult:
    """The result of stage 2.

    Parameters
    ----------
    tiles, computed
        All tiles of the slide, or of the part of it that was asked for, and those that this run computed.
    device, how
        The device, and the precision and batch that they were computed with.
    seconds
        From the first batch asked of the loader to the last one written; the model's loading is not counted.
    busy
        Share of the time, from the first batch asked of the loader to the last result handed to the writer, during
        which the device computed; None if there was nothing to compute.
    """

    tiles: int
    computed: int
    device: str
    how: Computed
    seconds: float = 0.0
    busy: float | None = None
    reused: bool = False

    @property
    def course(self) -> dict[str, float]:
        """Facts of the run that are kept in the store."""
        course: dict[str, float] = {"tiles": self.tiles, "computed": self.computed}
        if self.busy is not None:
            course |= {"seconds": round(self.seconds, 3), "device_busy": round(self.busy, 4)}
        return course

    @property
    def facts(self) -> dict[str, object]:
        """Facts for the record of the stage."""
        busy = None if self.busy is None else round(self.busy, 4)
        counts = {"tiles": self.tiles, "computed": self.computed}
        return {**counts, "device": self.device, "precision": self.how.precision, "device_busy": busy}


def infer(
    tiles_path: Path, out: Path, model: ReadyModel, *, part: Part | None = None, progress: Progress | None = None
) -> InferResult:
    """Run a model over a tile store, or go on where earlier runs with the same model and precision stopped.

    What was begun on another device goes on in the precision and the batches that it was begun with.

    Parameters
    ----------
    tiles_path
        A finished tile store.
    out
        The store to write (``.../probabilities.zarr``).
    part
        Compute only this part of the slide, beside ``out``; :func:`.parts.join` then makes ``out`` of all.

    Raises
    ------
    StoreError
        If the tile store cannot be used or is damaged, or another process writes ``out`` or the part.
    ModelError
        If the tiles were made for a model of another resolution or tile size.
    """
    tiles, made_by = open_input(tiles_path, "tiles")
    _check_fit(tiles_path, made_by.grid, model.spec)
    provenance = plan_probabilities(out, made_by, model)
    if (finished := is_finished(out, provenance)) and part is None:
        return InferResult(len(made_by.grid.tiles), 0, model.device, how_computed(provenance), reused=True)
    with GrowingStore.begin(out if part is None else part.path(out), provenance) as store:
        probability, iou = begin_arrays(store, tiles)

        def write(first: int, result: Batch) -> None:
            probability[first : first + len(result[0])] = result[0]
            iou[first : first + len(result[1])] = result[1]
            store.mark_done(first)

        starts, done = batch_starts(store.provenance), store.done
        if part is None:
            adopt_parts(store)
        else:
            starts = part.of_batches(starts)
            if finished:
                take_finished(store, out, starts)
            done = held_batches(out, store.provenance)
        result = _compute(tiles, starts, done, model, how_computed(store.provenance), write, progress)
        record_run(store, result.course)
        if part is None:
            store.finish()
            remove_parts(out)
    return result


def plan_probabilities(out: Path, tiles: Provenance, model: ReadyModel) -> Provenance:
    """Return the provenance of the store that :func:`infer` makes from a tile store.

    Precision and batch are those of a store at ``out`` (finished, begun or in parts) if any, else the device's.
    """
    wanted = wanted_probabilities(tiles, model.spec, model.precision)
    computed = next((each.computed for each in begun_stores(out) if each.identity == wanted.identity), None)
    if computed is not None and computed != model.computed:
        log.info("%s: goes on as it was begun, in %s with %d tiles a batch", out, computed.precision, computed.batch)
    return replace(wanted, computed=computed or model.computed)


def wanted_probabilities(tiles: Provenance, spec: ModelSpec, precision: str) -> Provenance:
    """Return the provenance of a model's probabilities of a tile store, however they are computed."""
    return tiles.followed_by("probabilities", {"precision": precision}, model=spec.record)


def _compute(
    tiles: zarr.Group,
    starts: Sequence[int],
    done: set[int],
    model: ReadyModel,
    how: Computed,
    write: Callable[[int, Batch], None],
    progress: Progress | None,
) -> InferResult:
    """Compute the given batches that are not done; reading and writing run beside the model."""
    rgb = read_array(tiles, "rgb")
    size = {first: min(how.batch, rgb.shape[0] - first) for first in starts}
    todo = [first for first in starts if first not in done]
    result = InferResult(sum(size.values()), sum(size[first] for first in todo), model.device, how)
    if not todo:
        return result
    check_complete(rgb)
    busy_s, writing = 0.0, None
    with ThreadPoolExecutor(_LOADERS, "loader") as loaders, ThreadPoolExecutor(1, "writer") as writer:
        batches = _load_ahead(loaders, rgb, todo, how.batch)  # begins while the model is loaded
        predict = model.load(how.precision)
        step = stepper(progress, result.tiles, "tiles", result.tiles - result.computed)
        begun = time.monotonic()
        for first, pixels in batches:
            with deferring_stop():
                start = time.monotonic()
                batch = predict(pixels)
                busy_s += time.monotonic() - start
                # So a crash costs the results of one batch beside the batch that is being computed.
                if writing is not None:
                    writing.result()
                writing = writer.submit(write, first, batch)
            step(len(pixels))
        computing_s = time.monotonic() - begun
        if writing is not None:
            writing.result()
    return replace(result, seconds=time.monotonic() - begun, busy=busy_s / computing_s)


def _load_ahead(
    loaders: ThreadPoolExecutor, source: AnyArray, starts: Sequence[int], batch: int
) -> Iterator[tuple[int, Pixels]]:
    """Begin to load batches of an array's first axis, and return them in order, each with its start.

    They are read shard by shard, several at once, into a few buffers that are used again and again: a batch is valid
    until the next one is taken. A failure to read is raised where its batch is due.
    """
    shards, shard, rest = Shards(source), (source.shards or source.chunks)[0], [slice(0, n) for n in source.shape[1:]]

    def load(start: int, buffer: Pixels) -> tuple[int, Pixels, list[Future[Pixels]]]:
        stop = min(start + batch, source.shape[0])
        cuts = [start, *range(start - start % shard + shard, stop, shard), stop]
        reads = [
            loaders.submit(shards.read, slice(first, last), *rest, out=buffer[first - start : last - start])
            for first, last in pairwise(cuts)
        ]
        return start, buffer, reads

    def take() -> Iterator[tuple[int, Pixels]]:
        while loading:
            start, buffer, reads = loading.popleft()
            for read in reads:
                read.result()
            yield start, buffer[: source.shape[0] - start]
            if (following := next(rest_of_starts, None)) is not None:
                loading.append(load(following, buffer))

    shape = (batch, *source.shape[1:])
    loading = deque(load(start, np.empty(shape, np.uint8)) for start in starts[:BATCHES_LOADED])
    rest_of_starts = iter(starts[BATCHES_LOADED:])
    return take()


def _check_fit(tiles_path: Path, grid: TileGrid, spec: ModelSpec) -> None:
    made_for = (grid.mpp_model, grid.tile_model_px, grid.output_stride)
    if made_for != (spec.mpp, spec.tile_px, spec.output_stride):
        raise ModelError(
            f"{tiles_path}: tiles of {grid.tile_model_px} px at {grid.mpp_model:g} um/px (output stride "
            f"{grid.output_stride}) do not fit the model '{spec.name}', which wants {spec.tile_px} px at "
            f"{spec.mpp:g} um/px (output stride {spec.output_stride})",
            "Tile the slide again with this model.",
        )
