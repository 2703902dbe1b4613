"""Sharded arrays read and written beside zarr-python: each understands what the other wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, GzipCodec

from sampath_wsi.errors import StoreError
from sampath_wsi.stores.shards import Shards
from sampath_wsi.stores.store import create_array


def make(folder: Path, shape: tuple[int, ...], dtype: str = "u1") -> zarr.Array[Any]:
    """Chunks of 4 x 6 and shards of 8 x 12 in the last two axes, one of each in the others."""
    ones = tuple(1 for _ in shape[:-2])
    group = zarr.open_group(folder, mode="a", zarr_format=3)
    names = ("a", "b", "y", "x")[-len(shape) :]
    chunks, shards = (*ones, 4, 6), (*shape[:-2], 8, 12)
    return create_array(group, "array", shape=shape, dtype=dtype, chunks=chunks, shards=shards, dimension_names=names)


def noise(shape: tuple[int, ...], dtype: str = "u1") -> NDArray[Any]:
    """Random values with a corner of zeros, so that whole chunks and shards are empty."""
    values = np.random.default_rng(0).integers(1, 200, shape).astype(dtype)
    values[..., :9, :13] = 0
    return values


shapes = st.sampled_from([(8, 12), (21, 30), (3, 16, 25), (2, 3, 5, 7)])


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shape=shapes, dtype=st.sampled_from(["u1", "f4"]), data=st.data())
def test_windows_of_what_zarr_wrote(
    tmp_path_factory: pytest.TempPathFactory, shape: tuple[int, ...], dtype: str, data: st.DataObject
) -> None:
    array, values = make(tmp_path_factory.mktemp("a"), shape, dtype), noise(shape, dtype)
    array[...] = values
    begin = [data.draw(st.integers(0, n - 1)) for n in shape]
    end = [data.draw(st.integers(a + 1, n)) for a, n in zip(begin, shape, strict=True)]
    window = tuple(slice(a, b) for a, b in zip(begin, end, strict=True))
    found = Shards(array).read(*window)
    assert found.dtype == array.dtype
    assert np.array_equal(found, values[window])


@pytest.mark.parametrize("shape", [(8, 12), (21, 30), (3, 16, 25), (2, 3, 5, 7)])
def test_zarr_reads_whole_shards_in_the_same_files(tmp_path: Path, shape: tuple[int, ...]) -> None:
    ours, theirs, values = make(tmp_path / "ours", shape), make(tmp_path / "theirs", shape), noise(shape)
    theirs[...] = values
    shards = Shards(ours)
    for row in range(-(-shape[-2] // 8)):
        for column in range(-(-shape[-1] // 12)):
            place = (*(0 for _ in shape[:-2]), row, column)
            shards.write(place, values[..., 8 * row : 8 * row + 8, 12 * column : 12 * column + 12])
    assert np.array_equal(ours[...], values)
    names = [{p.relative_to(tmp_path / n) for p in (tmp_path / n).rglob("*")} for n in ("ours", "theirs")]
    assert names[0] == names[1]


def test_tiles_are_read_into_a_buffer(tmp_path: Path) -> None:
    values = noise((5, 16, 12, 3))
    array = create_array(
        zarr.create_group(tmp_path, zarr_format=3),
        "rgb",
        shape=values.shape,
        dtype="u1",
        chunks=(1, 16, 12, 3),
        shards=(2, 16, 12, 3),
        dimension_names=("tile", "y", "x", "channel"),
        codec=BloscCodec(cname="lz4", clevel=1),
        skip_empty=False,
    )
    array[...] = values
    buffer = np.empty((3, 16, 12, 3), np.uint8)
    Shards(array).read(slice(1, 4), slice(0, 16), slice(0, 12), slice(0, 3), out=buffer)
    assert np.array_equal(buffer, values[1:4])


def test_other_codecs_are_refused(tmp_path: Path) -> None:
    array = zarr.create_array(tmp_path / "a.zarr", shape=(21, 30), dtype="u1", chunks=(8, 12), compressors=GzipCodec())
    with pytest.raises(StoreError, match=r"a\.zarr: the array '' has unknown codecs"):
        Shards(array)


@pytest.mark.parametrize("place", [3, -20])
def test_damage_is_noticed_in_chunks_and_index(tmp_path: Path, place: int) -> None:
    array = make(tmp_path, (8, 12))
    array[...] = np.arange(96, dtype=np.uint8).reshape(8, 12)
    (shard,) = (p for p in (tmp_path / "array" / "c").rglob("*") if p.is_file())
    damaged = bytearray(shard.read_bytes())
    damaged[place] ^= 1
    shard.write_bytes(damaged)
    with pytest.raises(
        StoreError, match=r"chunk \d/\d of the array 'array' is damaged \(the checksum does not match\)"
    ):
        Shards(array).read(slice(0, 8), slice(0, 12))
