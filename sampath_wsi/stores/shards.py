"""Windows and whole shards of sharded Zarr v3 arrays, read and written in the thread that asks for them.

zarr-python passes every chunk through one event loop, whose bookkeeping takes several times as long as packing a chunk,
and keeps threads from working side by side. What lies on the disk is the same: the sharding codec of the Zarr v3
specification (packed chunks, then an index of offsets and lengths, CRC-32C on both). Arrays of other stores or codecs
are left to zarr-python.
"""

from __future__ import annotations

import os
from itertools import product
from pathlib import Path
from typing import Any
from uuid import uuid4

import google_crc32c
import numpy as np
import zarr
from numcodecs.zstd import Zstd  # type: ignore[import-untyped]
from numpy.typing import NDArray
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec, ShardingCodecIndexLocation, ZstdCodec
from zarr.storage import LocalStore

from sampath_wsi.errors import StoreError

_EMPTY = np.uint64(2**64 - 1)
_CRC_BYTES = 4
# What zarr, its codecs and this module raise on bytes that are not what was written.
DAMAGE = (ValueError, RuntimeError, OSError, TypeError)


class Shards:
    """An array that is read by windows and written by whole shards; threads may share it.

    Raises
    ------
    StoreError
        Where a chunk that is read is damaged: it names store and chunk.
    """

    def __init__(self, array: zarr.Array[Any]) -> None:
        self.array = array
        self.shape = array.shape
        self.dtype = array.dtype
        self.chunks = array.chunks
        self._shard_shape = array.shards or array.chunks
        self._chunks_per_shard = tuple(s // c for s, c in zip(self._shard_shape, self.chunks, strict=True))
        self._index: dict[tuple[int, ...], NDArray[np.uint64] | None] = {}
        codec = _zstd_of(array)
        self._zstd = None if codec is None else Zstd(level=codec.level, checksum=codec.checksum)

    def read(self, *window: slice) -> NDArray[Any]:
        """A window: a slice with start and stop, within the array, for every axis."""
        if self._zstd is None:
            try:
                return np.asarray(self.array[window])
            except DAMAGE as error:
                raise damaged(self.array, window, error) from error
        found = np.empty([each.stop - each.start for each in window], self.dtype)
        ranges = [range(w.start // c, -(-w.stop // c)) for w, c in zip(window, self.chunks, strict=True)]
        for place in product(*ranges):
            inside, outside = [], []
            for at, size, wanted in zip(place, self.chunks, window, strict=True):
                begin, end = max(at * size, wanted.start), min((at + 1) * size, wanted.stop)
                inside.append(slice(begin - at * size, end - at * size))
                outside.append(slice(begin - wanted.start, end - wanted.start))
            try:
                chunk = self._read_chunk(place)
            except DAMAGE as error:
                raise ChunkError(self.array, place, error) from error
            found[tuple(outside)] = 0 if chunk is None else chunk[tuple(inside)]
        return found

    def write(self, place: tuple[int, ...], block: NDArray[Any]) -> None:
        """Write a whole shard: ``place`` numbers shards, not pixels. At the array's end the block may be smaller."""
        if self._zstd is None:
            corner = [at * size for at, size in zip(place, self._shard_shape, strict=True)]
            self.array[tuple(slice(a, a + n) for a, n in zip(corner, block.shape, strict=True))] = block
            return
        index = np.full((*self._chunks_per_shard, 2), _EMPTY, "<u8")
        parts: list[bytes] = []
        offset = 0
        for chunk_place in np.ndindex(*self._chunks_per_shard):
            packed = self._pack(
                block[tuple(slice(k * c, (k + 1) * c) for k, c in zip(chunk_place, self.chunks, strict=True))]
            )
            if packed is not None:
                index[chunk_place] = offset, len(packed) + _CRC_BYTES
                parts += [packed, _crc(packed)]
                offset += len(packed) + _CRC_BYTES
        if parts:
            path = shard_path(self.array, place)
            path.parent.mkdir(parents=True, exist_ok=True)
            # In one step: on workers that lose sight of each other, two may write the same shard.
            aside = path.with_name(f"{path.name}.{uuid4().hex}.partial")
            with open(aside, "wb") as file:
                file.writelines([*parts, index.tobytes(), _crc(index.tobytes())])
            os.replace(aside, path)

    def _pack(self, chunk: NDArray[Any]) -> bytes | None:
        """A compressed chunk; None if it holds nothing but zeros."""
        if not chunk.any():
            return None
        if chunk.shape != self.chunks:
            chunk = np.pad(chunk, [(0, size - n) for size, n in zip(self.chunks, chunk.shape, strict=True)])
        assert self._zstd is not None
        packed: bytes = self._zstd.encode(np.ascontiguousarray(chunk, self.dtype.newbyteorder("<")))
        return packed

    def _read_chunk(self, place: tuple[int, ...]) -> NDArray[Any] | None:
        shard = tuple(at // n for at, n in zip(place, self._chunks_per_shard, strict=True))
        if shard not in self._index:
            self._index[shard] = self._read_index(shard)
        index = self._index[shard]
        if index is None:
            return None
        offset, length = index[tuple(at % n for at, n in zip(place, self._chunks_per_shard, strict=True))]
        if offset == _EMPTY:
            return None
        with open(shard_path(self.array, shard), "rb", buffering=0) as file:
            packed = _checked(os.pread(file.fileno(), int(length), int(offset)))
        assert self._zstd is not None
        return np.frombuffer(self._zstd.decode(packed), self.dtype.newbyteorder("<")).reshape(self.chunks)

    def _read_index(self, shard: tuple[int, ...]) -> NDArray[np.uint64] | None:
        shape = *self._chunks_per_shard, 2
        length = 8 * int(np.prod(shape)) + _CRC_BYTES
        try:
            with open(shard_path(self.array, shard), "rb", buffering=0) as file:
                end = file.seek(0, os.SEEK_END)
                raw = _checked(os.pread(file.fileno(), length, max(0, end - length)))
        except FileNotFoundError:
            return None
        return np.frombuffer(raw, "<u8").reshape(shape)


def read_whole(array: zarr.Array[Any]) -> NDArray[Any]:
    """A small array as a whole; errors as for :class:`Shards`."""
    return Shards(array).read(*(slice(0, n) for n in array.shape))


def shard_path(array: zarr.Array[Any], place: tuple[int, ...]) -> Path:
    """The file of a shard of an array in a folder; ``place`` numbers shards."""
    return _store_path(array) / array.path / array.metadata.encode_chunk_key(place)


def check_complete(array: zarr.Array[Any]) -> None:
    """Check that every shard of an array is there that leaves no chunk out; zarr takes what is missing for zeros.

    Raises
    ------
    StoreError
        If one is missing.
    """
    shards = array.shards or array.chunks
    for place in product(*(range(-(-n // size)) for n, size in zip(array.shape, shards, strict=True))):
        if not shard_path(array, place).exists():
            first = tuple(at * (size // c) for at, size, c in zip(place, shards, array.chunks, strict=True))
            raise ChunkError(array, first, "its file is missing")


def damaged(array: zarr.Array[Any], window: tuple[slice, ...], error: Exception) -> StoreError:
    """The error of a window that zarr could not read: it names the first chunk in it that is damaged."""
    ranges = [range(w.start // c, -(-w.stop // c)) for w, c in zip(window, array.chunks, strict=True)]
    for place in product(*ranges):
        try:
            array[tuple(slice(at * c, (at + 1) * c) for at, c in zip(place, array.chunks, strict=True))]
        except DAMAGE as found:
            return ChunkError(array, place, found)
    return StoreError(f"{_store_path(array)}: array '{array.path}' cannot be read ({error})", "Run again.")


class ChunkError(StoreError):
    """A chunk cannot be read; ``what`` says which and why, without what to do."""

    def __init__(self, array: zarr.Array[Any], place: tuple[int, ...], reason: object) -> None:
        store = _store_path(array)
        self.what = f"{store}: chunk {'/'.join(map(str, place))} of the array '{array.path}' is damaged ({reason})"
        super().__init__(
            self.what,
            f"'sampath-wsi check --repair {store}' keeps the rest; then run its stage, or the workflow, again.",
        )

    def __reduce__(self) -> tuple[type[StoreError], tuple[Any, ...]]:
        # From another process only the message comes.
        return StoreError, self.args


def _store_path(array: zarr.Array[Any]) -> Path:
    return Path(array.store_path.store.root)  # type: ignore[attr-defined]


def _zstd_of(array: zarr.Array[Any]) -> ZstdCodec | None:
    """The compressor of an array that is stored as this module can; None for every other."""
    metadata = array.metadata
    if metadata.zarr_format != 3 or not isinstance(array.store_path.store, LocalStore) or metadata.fill_value != 0:
        return None
    match metadata.codecs:
        case (
            ShardingCodec(
                codecs=(BytesCodec(), ZstdCodec() as codec, Crc32cCodec()),
                index_codecs=(BytesCodec(), Crc32cCodec()),
                index_location=ShardingCodecIndexLocation.end,
            ),
        ):
            return codec
    return None


def _crc(data: bytes) -> bytes:
    return int(google_crc32c.value(data)).to_bytes(_CRC_BYTES, "little")


def _checked(data: bytes) -> bytes:
    """Data without the checksum at its end."""
    body = data[:-_CRC_BYTES]
    if _crc(body) != data[-_CRC_BYTES:]:
        raise ValueError("the checksum does not match")
    return body
