"""Batches loaded ahead and results written behind by threads, while the device computes.

Memory is bounded by what may wait: :data:`BATCHES_LOADED` batches of tiles and one result.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from typing import Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from zarr.types import AnyArray

from sampath_wsi.stores.shards import Shards

BATCHES_LOADED = 3
_LOADERS = 2

Pixels = NDArray[np.uint8]
Result = TypeVar("Result")


class LoadAhead:
    """Batches of an array's first axis in order, loaded ahead by threads, from the moment that it is made.

    The batches lie in a few buffers that are used again and again: a batch is valid until the next one is taken.

    Parameters
    ----------
    source
        ``(tile, ...)`` uint8; read shard by shard, several at once.
    starts
        Where the batches begin, ascending.
    batch
        Entries a batch; the last one of the array may hold fewer.
    """

    def __init__(self, source: AnyArray, starts: Sequence[int], batch: int) -> None:
        self._source, self._batch = Shards(source), batch
        self._shard = (source.shards or source.chunks)[0]
        self._starts = iter(starts)
        self._pool = ThreadPoolExecutor(_LOADERS, "loader")
        self._loading: deque[tuple[int, Pixels, list[Future[Pixels]]]] = deque()
        for _ in range(min(BATCHES_LOADED, len(starts))):
            self._load_next(np.empty((batch, *source.shape[1:]), np.uint8))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def __iter__(self) -> Iterator[tuple[int, Pixels]]:
        """Yield each batch's start and entries; a failure to read is raised where its batch is due."""
        while self._loading:
            start, buffer, pieces = self._loading.popleft()
            for piece in pieces:
                piece.result()
            yield start, buffer[: self._source.shape[0] - start]
            self._load_next(buffer)

    def _load_next(self, buffer: Pixels) -> None:
        start = next(self._starts, None)
        if start is None:
            return
        stop = min(start + self._batch, self._source.shape[0])
        cuts = [start, *range(start - start % self._shard + self._shard, stop, self._shard), stop]
        rest = [slice(0, length) for length in self._source.shape[1:]]
        pieces = [
            self._pool.submit(self._source.read, slice(first, last), *rest, out=buffer[first - start : last - start])
            for first, last in pairwise(cuts)
        ]
        self._loading.append((start, buffer, pieces))


class WriteBehind(Generic[Result]):
    """Hands results to a thread that writes them; what was handed over is written also when the block fails.

    Parameters
    ----------
    write
        Called with the start of a batch and its result, one batch after the other.
    """

    def __init__(self, write: Callable[[int, Result], None]) -> None:
        self._write = write
        self._pool = ThreadPoolExecutor(1, "writer")
        self._writing: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def put(self, start: int, result: Result) -> None:
        """Hand over a result, once the one before is written; raises what writing that failed with.

        So a crash costs the results of one batch beside the batch that is being computed.
        """
        if self._writing is not None:
            self._writing.result()
        self._writing = self._pool.submit(self._write, start, result)

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown()
        if error[0] is None and self._writing is not None:
            self._writing.result()
