"""Sharded arrays, read by windows and written by whole shards in the thread that asks.

The bytes are those of the sharding codec of the Zarr v3 specification: packed chunks, an index of offsets and lengths,
a CRC-32C on each. By other means (``benchmarks/stores.py``) stitching takes more time of the processor: 80 % with zarr
3.1.6, 19 to 30 % with the fused pipeline of zarr 3.4, about 12 % with ``zarrs`` 0.2.3, which moreover writes shards in
place, not in one step, and waits for ever in a process that was forked. So these lines stay.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any
from uuid import uuid4

import google_crc32c
import numpy as np
from numcodecs.blosc import Blosc  # type: ignore[import-untyped]
from numcodecs.zstd import Zstd  # type: ignore[import-untyped]
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, ShardingCodec, ZstdCodec
from zarr.types import AnyArray

from sampath_wsi.errors import StoreError

Block = NDArray[Any]
"""Values of a part of an array: bytes or floats."""

_EMPTY = np.uint64(2**64 - 1)
_CRC_BYTES = 4


class Shards:
    """An array that :func:`sampath_wsi.stores.store.create_array` made; threads may share it.

    Raises
    ------
    StoreError
        If the array is stored otherwise, or a chunk that is read is damaged: it names store and chunk.
    """

    def __init__(self, array: AnyArray) -> None:
        self.array = array
        self.shape, self.dtype, self.chunks = array.shape, array.dtype, array.chunks
        self._shard_shape = array.shards or array.chunks
        self._chunks_per_shard = tuple(s // c for s, c in zip(self._shard_shape, self.chunks, strict=True))
        self._codec = _compressor(array)
        self._index: dict[tuple[int, ...], NDArray[np.uint64] | None] = {}

    def read(self, *window: slice, out: Block | None = None) -> Block:
        """Return a window, a slice with start and stop within the array for every axis; ``out`` is filled if given."""
        found = np.empty([each.stop - each.start for each in window], self.dtype) if out is None else out
        for place in product(*(range(w.start // c, -(-w.stop // c)) for w, c in zip(window, self.chunks, strict=True))):
            inside, outside = [], []
            for at, size, wanted in zip(place, self.chunks, window, strict=True):
                begin, end = max(at * size, wanted.start), min((at + 1) * size, wanted.stop)
                inside.append(slice(begin - at * size, end - at * size))
                outside.append(slice(begin - wanted.start, end - wanted.start))
            try:
                chunk = self._read_chunk(place)
            except (ValueError, RuntimeError, OSError, TypeError) as error:
                raise ChunkError(self.array, place, error) from error
            found[tuple(outside)] = 0 if chunk is None else chunk[tuple(inside)]
        return found

    def write(self, place: tuple[int, ...], block: Block) -> None:
        """Write a whole shard: ``place`` numbers shards, not pixels. At the array's end the block may be smaller.

        Chunks of zeros, and shards of nothing else, are left out.
        """
        index = np.full((*self._chunks_per_shard, 2), _EMPTY, "<u8")
        packed: list[bytes] = []
        offset = 0
        for at in np.ndindex(*self._chunks_per_shard):
            chunk = block[tuple(slice(k * c, (k + 1) * c) for k, c in zip(at, self.chunks, strict=True))]
            if not chunk.any():
                continue
            if chunk.shape != self.chunks:
                chunk = np.pad(chunk, [(0, size - n) for size, n in zip(self.chunks, chunk.shape, strict=True)])
            packed.append(_with_crc(self._codec.encode(np.ascontiguousarray(chunk, self.dtype.newbyteorder("<")))))
            index[at] = offset, len(packed[-1])
            offset += len(packed[-1])
        if packed:
            path = shard_path(self.array, place)
            path.parent.mkdir(parents=True, exist_ok=True)
            # In one step: on workers that lose sight of each other, two may write the same shard.
            aside = path.with_name(f"{path.name}.{uuid4().hex}.partial")
            with open(aside, "wb") as file:
                file.writelines([*packed, _with_crc(index.tobytes())])
            os.replace(aside, path)

    def _read_chunk(self, place: tuple[int, ...]) -> Block | None:
        shard = tuple(at // n for at, n in zip(place, self._chunks_per_shard, strict=True))
        if shard not in self._index:
            self._index[shard] = self._read_index(shard)
        if (index := self._index[shard]) is None:
            return None
        offset, length = index[tuple(at % n for at, n in zip(place, self._chunks_per_shard, strict=True))]
        if offset == _EMPTY:
            return None
        with open(shard_path(self.array, shard), "rb", buffering=0) as file:
            data = self._codec.decode(_without_crc(os.pread(file.fileno(), int(length), int(offset))))
        return np.frombuffer(data, self.dtype.newbyteorder("<")).reshape(self.chunks)

    def _read_index(self, shard: tuple[int, ...]) -> NDArray[np.uint64] | None:
        shape = *self._chunks_per_shard, 2
        length = 8 * int(np.prod(shape)) + _CRC_BYTES
        try:
            with open(shard_path(self.array, shard), "rb", buffering=0) as file:
                end = file.seek(0, os.SEEK_END)
                data = _without_crc(os.pread(file.fileno(), length, max(0, end - length)))
        except FileNotFoundError:
            return None
        return np.frombuffer(data, "<u8").reshape(shape)


def read_whole(array: AnyArray) -> Block:
    """Return a small array as a whole; errors as for :class:`Shards`."""
    return Shards(array).read(*(slice(0, n) for n in array.shape))


def shard_path(array: AnyArray, place: tuple[int, ...]) -> Path:
    """Return the file of a shard of an array in a folder; ``place`` numbers shards."""
    return _store_path(array) / array.path / array.metadata.encode_chunk_key(place)


def shard_places(array: AnyArray) -> Iterator[tuple[int, ...]]:
    """Yield the places of all shards of an array."""
    return product(*(range(-(-n // size)) for n, size in zip(array.shape, array.shards or array.chunks, strict=True)))


def check_complete(array: AnyArray) -> None:
    """Check that an array all of whose chunks were written has all its shards; a missing one reads as zeros.

    Raises
    ------
    StoreError
        If one is missing.
    """
    for place in shard_places(array):
        if not shard_path(array, place).exists():
            sizes = zip(place, array.shards or array.chunks, array.chunks, strict=True)
            raise ChunkError(array, tuple(at * (size // c) for at, size, c in sizes), "its file is missing")


class ChunkError(StoreError):
    """A chunk that cannot be read; ``what`` names it and the reason, but no remedy."""

    def __init__(self, array: AnyArray, place: tuple[int, ...], reason: object) -> None:
        store = _store_path(array)
        self.what = f"{store}: chunk {'/'.join(map(str, place))} of the array '{array.path}' is damaged ({reason})"
        super().__init__(
            self.what,
            f"'sampath-wsi check --repair {store}' keeps the rest; then run its stage, or the workflow, again.",
        )

    def __reduce__(self) -> tuple[type[StoreError], tuple[object, ...]]:
        # From another process only the message comes.
        return StoreError, self.args


def _store_path(array: AnyArray) -> Path:
    return Path(array.store_path.store.root)  # type: ignore[attr-defined]


def _compressor(array: AnyArray) -> Zstd | Blosc:
    metadata = array.metadata
    match metadata.codecs if metadata.zarr_format == 3 else ():
        case (ShardingCodec(codecs=(BytesCodec(), ZstdCodec() as codec, Crc32cCodec())),):
            return Zstd(level=codec.level, checksum=codec.checksum)
        case (ShardingCodec(codecs=(BytesCodec(), BloscCodec(), Crc32cCodec())),):
            return Blosc()
    raise StoreError(f"{_store_path(array)}: the array '{array.path}' has unknown codecs", "Make the store anew.")


def _with_crc(data: bytes) -> bytes:
    return data + int(google_crc32c.value(data)).to_bytes(_CRC_BYTES, "little")


def _without_crc(data: bytes) -> bytes:
    body = data[:-_CRC_BYTES]
    if int(google_crc32c.value(body)).to_bytes(_CRC_BYTES, "little") != data[-_CRC_BYTES:]:
        raise ValueError("the checksum does not match")
    return body
