"""Stores with damage: found, named, and mended by making anew only what is damaged."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from sampath_wsi.errors import StoreError
from sampath_wsi.stages.infer.stage import infer
from sampath_wsi.stages.stitch.stage import stitch
from sampath_wsi.stages.tile import TileResult
from sampath_wsi.stores.integrity import find_damage, set_aside
from sampath_wsi.stores.store import GrowingStore, open_store
from tests.helpers import SPEC, ColourModel, blob_slide, contents, ready
from tests.helpers import tile as tile_slide

STORES = ("tiles.zarr", "probabilities.zarr", "segmentation.ome.zarr")


def tile(folder: Path) -> TileResult:
    return tile_slide(folder / "s.tif", folder / "tiles.zarr")


def segment(folder: Path) -> int:
    """Infer and stitch; returns how many tiles were computed."""
    model = ColourModel(SPEC)
    infer(folder / "tiles.zarr", folder / "probabilities.zarr", ready(SPEC, lambda: model))
    stitch(folder / "probabilities.zarr", folder / "segmentation.ome.zarr")
    return sum(model.calls)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    blob_slide(folder / "s.tif", size=400)
    tile(folder)
    segment(folder)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "made")


def shards(store: Path) -> list[Path]:
    return sorted(p for p in store.rglob("*") if p.is_file() and p.name != "zarr.json")


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def truncate(path: Path, at: int) -> None:
    os.truncate(path, at)


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("harm", [flip, truncate])
def test_every_flipped_bit_and_every_truncation_is_found(folder: Path, store: str, harm) -> None:  # type: ignore[no-untyped-def]
    rng = random.Random(f"{store} {harm.__name__}")
    assert find_damage(folder / store) == []
    for _ in range(12):
        shard = rng.choice(shards(folder / store))
        whole = shard.read_bytes()
        harm(shard, rng.randrange(len(whole)))
        assert [each.file for each in find_damage(folder / store)] == [shard]
        shard.write_bytes(whole)


def test_only_the_damaged_shard_is_made_anew(folder: Path, made: Path) -> None:
    for store in STORES[:2]:
        unit = {"tiles.zarr": "rgb", "probabilities.zarr": "probability"}[store]
        shard = shards(folder / store / unit)[1]
        flip(shard, 30)
        (damage,) = find_damage(folder / store)
        assert f"{store}: chunk " in damage.what
        assert f"of the array '{unit}' is damaged" in damage.what
        kept = {p: p.stat().st_ino for p in shards(folder / store / unit) if p != shard}
        done = set_aside(folder / store, [damage])
        assert done == len(kept)
        with pytest.raises(StoreError, match="begun but not finished"):
            open_store(folder / store, store.removesuffix(".zarr"))
        assert not tile(folder).reused or store != "tiles.zarr"
        assert segment(folder) == (4 if store == "probabilities.zarr" else 0)
        if store == "tiles.zarr":
            assert {p: p.stat().st_ino for p in kept} == kept
        assert contents(folder) == contents(made)


@pytest.mark.parametrize("array", ["probability", "iou", "tissue"])
def test_a_lost_file_is_made_anew_too(folder: Path, made: Path, array: str) -> None:
    store = folder / "probabilities.zarr"
    if array == "probability":
        shards(store / array)[-1].unlink()
    else:
        truncate(shards(store / array)[-1], 7)
    damage = find_damage(store)
    assert len(damage) == 1
    set_aside(store, damage)
    tiles = open_store(store.with_name("tiles.zarr"), "tiles")[1].grid.tiles
    last = (len(tiles) - 1) % 4 + 1
    assert segment(folder) == (0 if array == "tissue" else last)
    assert contents(folder) == contents(made)


@pytest.mark.parametrize("array", ["0", "labels/classes/0"])
def test_a_lost_file_of_a_map_is_missed(folder: Path, made: Path, array: str) -> None:
    store = folder / "segmentation.ome.zarr"
    shutil.rmtree(store / array / "c")
    with pytest.raises(StoreError, match=rf"1 of 1 files of the array '{array}' are missing\. Run .*--repair"):
        open_store(store, "segmentation")
    (damage,) = find_damage(store)
    assert damage.what == f"{store}: 1 of 1 files of the array '{array}' are missing"
    assert set_aside(store, [damage]) == 0
    assert segment(folder) == 0
    assert contents(folder) == contents(made)


def test_a_damaged_map_is_stitched_again(folder: Path, made: Path) -> None:
    store = folder / "segmentation.ome.zarr"
    flip(shards(store)[0], 5)
    assert set_aside(store, find_damage(store)) == 0
    assert segment(folder) == 0
    assert contents(folder) == contents(made)


@pytest.mark.parametrize(
    ("name", "message"), [("zarr.json", "not a finished store"), ("rgb/zarr.json", "metadata are damaged")]
)
def test_damaged_metadata_are_one_line(folder: Path, name: str, message: str) -> None:
    path = folder / "tiles.zarr" / name
    truncate(path, path.stat().st_size // 2)
    with pytest.raises(StoreError, match=message):
        find_damage(folder / "tiles.zarr")
    shutil.rmtree(folder / "probabilities.zarr")
    with pytest.raises(StoreError, match=r"tiles\.zarr: .*(not a tiles store|metadata)"):
        segment(folder)


def test_the_command_names_damage_and_repairs_on_request(folder: Path, made: Path) -> None:
    from typer.testing import CliRunner

    from sampath_wsi.cli import app

    stores = [str(folder / store) for store in STORES]
    whole = CliRunner().invoke(app, ["check", *stores])
    assert whole.exit_code == 0
    assert whole.stdout.splitlines() == [f"{store}: whole" for store in stores]
    flip(shards(folder / "probabilities.zarr" / "probability")[2], 9)
    found = CliRunner().invoke(app, ["check", *stores])
    assert isinstance(found.exception, StoreError)
    assert "1 of 3 stores are damaged" in str(found.exception)
    assert "of the array 'probability' is damaged (the checksum does not match)" in found.stdout
    assert (folder / "probabilities.zarr").exists()
    repaired = CliRunner().invoke(app, ["check", "--repair", *stores])
    assert repaired.exit_code == 0
    assert "set aside with" in repaired.stdout
    assert segment(folder) == 4
    assert contents(folder) == contents(made)


def test_a_store_that_is_being_made_is_left_alone(folder: Path) -> None:
    store = folder / "tiles.zarr"
    flip(shards(store / "rgb")[0], 9)
    damage = find_damage(store)
    with GrowingStore.begin(store, open_store(store, "tiles")[1]), pytest.raises(StoreError, match="is writing it"):
        set_aside(store, damage)
    assert find_damage(store) == damage


def test_a_damaged_map_is_named_by_whoever_reads_it(folder: Path) -> None:
    from sampath_wsi.stages.report import write_summary

    store = folder / "segmentation.ome.zarr"
    flip(shards(store / "labels" / "classes" / "0")[0], 9)
    with pytest.raises(StoreError, match="of the array 'labels/classes/0' is damaged"):
        write_summary(store, folder / "run", folder / "summary.json")
