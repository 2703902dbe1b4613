from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from zarr.codecs import BloscCodec

from sampath_wsi.errors import StoreError
from sampath_wsi.stores.provenance import Provenance
from sampath_wsi.stores.shards import check_complete
from sampath_wsi.stores.store import GrowingStore, is_finished, open_store, read_array
from tests.helpers import make_grid, slide_record


def provenance(**options: object) -> Provenance:
    return Provenance("tiles", slide_record(), make_grid(), options)


def begin(path: Path, made_by: Provenance) -> GrowingStore:
    store = GrowingStore.begin(path, made_by)
    store.array("a", shape=(8, 4), dtype=np.uint8, chunks=(1, 4), shards=(2, 4), dimension_names=("x", "y"))
    return store


def test_is_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "tiles.zarr"
    store = begin(path, provenance())
    store.group["a"][0:2] = 7
    assert not path.exists()
    with pytest.raises(StoreError, match=r"no finished tiles store.*run the stage again"):
        open_store(path, "tiles")
    store.finish()
    group, made_by = open_store(path, "tiles")
    assert made_by == provenance()
    assert (read_array(group, "a")[0:2] == 7).all()
    assert [entry.name for entry in tmp_path.iterdir()] == ["tiles.zarr"]


def test_zeros_are_stored_on_request_after_a_resume(tmp_path: Path) -> None:
    path = tmp_path / "tiles.zarr"
    for shard in range(2):
        with GrowingStore.begin(path, provenance()) as store:
            array = store.array(
                "a",
                shape=(4, 4),
                dtype=np.uint8,
                chunks=(1, 4),
                shards=(2, 4),
                dimension_names=("x", "y"),
                skip_empty=False,
            )
            array[2 * shard : 2 * shard + 2] = np.zeros((2, 4), np.uint8)
    check_complete(array)


def test_resumes_only_what_the_same_began(tmp_path: Path) -> None:
    path = tmp_path / "tiles.zarr"
    with begin(path, provenance(overlap=8)) as store:
        store.group["a"][0:2] = 7
        store.mark_done(0)
    with begin(path, provenance(overlap=8)) as again:
        assert again.done == {0}
        assert (again.group["a"][0:2] == 7).all()
    with begin(path, provenance(overlap=16)) as other:
        assert other.done == set()
        assert not np.asarray(other.group["a"][:]).any()


def test_a_journal_line_cut_short_does_not_count(tmp_path: Path) -> None:
    with begin(tmp_path / "tiles.zarr", provenance()) as store:
        store.mark_done(4)
    with open(tmp_path / ".tiles.zarr.partial" / "done.journal", "a") as journal:
        journal.write("12")
    for _ in range(2):
        with begin(tmp_path / "tiles.zarr", provenance()) as store:
            assert store.done == {4}


def test_only_one_writes_a_store(tmp_path: Path) -> None:
    path = tmp_path / "tiles.zarr"
    with begin(path, provenance()):
        with pytest.raises(StoreError, match=rf"tiles\.zarr: process {os.getpid()} on .* is writing it at this moment"):
            begin(path, provenance())
        with pytest.raises(StoreError, match="is writing it"):
            begin(path, provenance(overlap=8))
    store = begin(path, provenance())
    store.finish()
    begin(path, provenance(overlap=8)).finish()
    assert [entry.name for entry in path.iterdir() if entry.name.startswith("done")] == []


def test_a_run_killed_at_its_last_step_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "tiles.zarr"
    begin(path, provenance()).finish()
    (path / "done.journal").write_text("0\n2\n")
    assert is_finished(path, provenance())
    assert not (path / "done.journal").exists()


def test_what_zarr_left_half_written_is_removed(tmp_path: Path) -> None:
    with begin(tmp_path / "tiles.zarr", provenance()) as store:
        store.group["a"][0:2] = 7
    left = tmp_path / ".tiles.zarr.partial" / "a" / "c" / "0" / "0.fb0bc267.partial"
    left.write_bytes(b"half")
    with begin(tmp_path / "tiles.zarr", provenance()) as store:
        assert not left.exists()
        assert (store.group["a"][0:2] == 7).all()


def test_finished_means_the_same_provenance(tmp_path: Path) -> None:
    path = tmp_path / "tiles.zarr"
    assert not is_finished(path, provenance())
    begin(path, provenance()).finish()
    assert is_finished(path, provenance())
    assert not is_finished(path, provenance(overlap=8))
    begin(path, provenance(overlap=8)).finish()
    assert is_finished(path, provenance(overlap=8))


def test_wrong_kind_and_wrong_format_are_named(tmp_path: Path) -> None:
    path = tmp_path / "tiles.zarr"
    begin(path, provenance()).finish()
    with pytest.raises(StoreError, match="not a probabilities store"):
        open_store(path, "probabilities")
    root = json.loads((path / "zarr.json").read_text())
    root["attributes"]["sampath_wsi"]["format_version"] = 99
    (path / "zarr.json").write_text(json.dumps(root))
    with pytest.raises(StoreError, match="format 99"):
        open_store(path, "tiles")
    shutil.rmtree(path)
    with pytest.raises(StoreError, match="Run that stage first"):
        open_store(path, "tiles")


def test_arrays_are_sharded_zarr_v3_with_checksums(tmp_path: Path) -> None:
    path = tmp_path / "tiles.zarr"
    store = begin(path, provenance())
    store.group["a"][:] = np.arange(32, dtype=np.uint8).reshape(8, 4)
    store.finish()
    group, _ = open_store(path, "tiles")
    array = read_array(group, "a")
    assert array.metadata.zarr_format == 3
    assert array.shards == (2, 4)
    assert len([p for p in (path / "a" / "c").rglob("*") if p.is_file()]) == 4
    shard = next(p for p in sorted((path / "a" / "c").rglob("*")) if p.is_file())
    content = bytearray(shard.read_bytes())
    content[3] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ValueError, match="checksum"):
        array[0]


@pytest.mark.parametrize("codec", [None, BloscCodec(cname="lz4", clevel=1, shuffle="noshuffle", typesize=1)])
def test_every_codec_keeps_the_checksum_and_zeros(tmp_path: Path, codec: BloscCodec | None) -> None:
    store = GrowingStore.begin(tmp_path / "tiles.zarr", provenance())
    array = store.array(
        "a",
        shape=(2, 64),
        dtype=np.uint8,
        chunks=(1, 64),
        shards=(1, 64),
        dimension_names=("x", "y"),
        codec=codec,
        skip_empty=False,
    )
    array[1] = np.arange(64, dtype=np.uint8)
    array[0] = 0
    assert not array[0].any()
    assert (array[1] == np.arange(64)).all()
    shards = sorted(path for path in (tmp_path / ".tiles.zarr.partial" / "a" / "c").rglob("*") if path.is_file())
    assert len(shards) == 2
    content = bytearray(shards[1].read_bytes())
    content[len(content) // 3] ^= 1
    shards[1].write_bytes(content)
    with pytest.raises(ValueError, match="checksum"):
        array[1]


def test_a_missing_array_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tiles.zarr"
    begin(path, provenance()).finish()
    group, _ = open_store(path, "tiles")
    with pytest.raises(StoreError, match="'rgb' is missing"):
        read_array(group, "rgb")
