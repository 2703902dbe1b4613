"""Tile objects: squares that meet, means that agree with the map, files that QuPath reads."""

from __future__ import annotations

import gzip
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from sampath_wsi.classes import TissueClass
from sampath_wsi.errors import ConfigError, StoreError
from sampath_wsi.geometry import TileGrid
from sampath_wsi.probability import entropy_percent, to_bytes
from sampath_wsi.stages.vectorize.tiles import cell_edges, sum_tiles, write_tile_objects
from tests.geojson_validator import validate
from tests.helpers import make_grid

from .maps import CLASSES, in_memory, natural_map, write_segmentation


def load(path: Path) -> list[dict[str, Any]]:
    data = path.read_bytes()
    return list(json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)["features"])


def random_map(seed: int, height: int, width: int, classes: int = 3) -> tuple[Any, Any]:
    """Labels with glass, and bytes of probabilities that fit them."""
    rng = np.random.default_rng(seed)
    labels = natural_map(height, width, seed=seed, classes=classes, sigma=4)
    raw = rng.gamma(0.5, size=(classes, height, width)) + 1e-9
    for k in range(classes):
        raw[k][labels == k + 1] += raw.sum(0)[labels == k + 1]
    return labels, to_bytes((raw / raw.sum(0)).astype(np.float32), 0)


@settings(max_examples=100)
@given(
    width=st.integers(30, 1500),
    height=st.integers(30, 900),
    tile=st.sampled_from([64, 128]),
    overlap=st.sampled_from([0, 8, 16, 28, 32]),
    mpp=st.sampled_from([0.25, 0.2325, 0.5]),
)
def test_the_squares_part_the_map_and_lie_in_their_tiles(
    width: int, height: int, tile: int, overlap: int, mpp: float
) -> None:
    grid = make_grid((width, height), mpp=(mpp, mpp), tile=tile, overlap=overlap)
    for edges, size, count in zip(cell_edges(grid), grid.map_size_map_px, (grid.columns, grid.rows), strict=True):
        assert (edges[0], edges[-1], len(edges)) == (0, size, count + 1)
        assert (np.diff(edges) > 0).all()
        begin = np.arange(count) * grid.step_map_px
        assert (edges[:-1] >= begin).all()
        assert (edges[1:] <= begin + grid.tile_map_px).all()


@pytest.mark.parametrize("window", [16, 37, 1024])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_sums_are_those_of_each_square(window: int, dtype: Any) -> None:
    labels, stored = random_map(1, 70, 90)
    shown = stored if dtype is np.uint8 else (stored / 255).astype(np.float32)
    columns, rows = np.array([0, 20, 36, 90]), np.array([0, 33, 70])
    sums = sum_tiles(in_memory(labels, shown, classes=CLASSES[:3]), columns, rows, window_map_px=window)
    p = stored / 255
    entropy = -np.where(p > 0, p * np.log2(np.where(p > 0, p, 1)), 0).sum(0)
    for r, (top, bottom) in enumerate(pairwise(rows.tolist())):
        for c, (left, right) in enumerate(pairwise(columns.tolist())):
            inside = np.s_[top:bottom, left:right]
            classed = labels[inside] > 0
            assert sums.count[r, c].tolist() == [int((labels[inside] == k).sum()) for k in (1, 2, 3)]
            assert sums.probability[r, c] == pytest.approx([p[k][inside][classed].sum() for k in range(3)], rel=1e-5)
            assert sums.entropy_bit[r, c] == pytest.approx(entropy[inside][classed].sum(), rel=1e-5)


def segmentation(path: Path, labels: Any, stored: Any, **options: Any) -> TileGrid:
    return write_segmentation(path, labels, stored, classes=options.pop("classes", CLASSES[:3]), **options)


def test_from_the_store_to_a_file_that_qupath_reads(tmp_path: Path) -> None:
    labels, stored = random_map(2, 60, 80)
    grid = segmentation(tmp_path / "s.zarr", labels, stored, mpp=(0.2325, 0.25), qupath_offset=(100, 24))
    steps: list[tuple[Any, ...]] = []
    result = write_tile_objects(
        tmp_path / "s.zarr", tmp_path / "tiles.geojson.gz", progress=lambda *step: steps.append(step)
    )
    assert validate(result.path) == []
    assert steps[-1] == (1, 1, "windows")
    features = load(result.path)
    assert sum(result.tiles.values()) + result.left_out == len(grid.tiles)
    assert len(features) == sum(result.tiles.values()) > 10
    columns, rows = cell_edges(grid)
    # What the picture of the entropy shows, in whole percent.
    entropy = entropy_percent(stored)
    for feature in features:
        properties = feature["properties"]
        assert (properties["objectType"], properties["isLocked"]) == ("tile", False)
        row, column = (int(n) - 1 for n in properties["name"].removeprefix("Tile ").split(", "))
        inside = np.s_[rows[row] : rows[row + 1], columns[column] : columns[column + 1]]
        classed = labels[inside] > 0
        most = np.bincount(labels[inside][classed], minlength=4)[1:].argmax()
        assert properties["classification"]["name"] == CLASSES[most].name
        measured = properties["measurements"]
        for k in range(3):
            mean = stored[k][inside][classed].mean() / 255
            assert measured[f"Prob: {CLASSES[k].name}"] == pytest.approx(mean, abs=5.1e-5)
        assert measured["Tissue %"] == pytest.approx(100 * classed.mean(), abs=0.006)
        assert measured["Entropy %"] == pytest.approx(entropy[inside][classed].mean(), abs=0.3)
        sx, sy, x, y = grid.map_to_level0_px()
        box = (columns[column] * sx, rows[row] * sy, columns[column + 1] * sx, rows[row + 1] * sy)
        end = (grid.region_width_level0_px, grid.region_height_level0_px)
        box = (*box[:2], min(box[2], end[0]), min(box[3], end[1]))
        expected = tuple(edge + (x, y, x, y)[k] - (100, 24, 100, 24)[k] for k, edge in enumerate(box))
        assert shapely.geometry.shape(feature["geometry"]).bounds == pytest.approx(expected, abs=0.0051)
    shapes = [shapely.geometry.shape(f["geometry"]) for f in features]
    assert sum(shape.area for shape in shapes) == pytest.approx(shapely.union_all(shapes).area, rel=1e-9)


def test_the_same_tile_has_the_same_name_and_id_every_time(tmp_path: Path) -> None:
    labels, stored = random_map(3, 60, 80)
    segmentation(tmp_path / "s.zarr", labels, stored, qupath_offset=(100, 24))
    first = write_tile_objects(tmp_path / "s.zarr", tmp_path / "a.geojson.gz")
    again = write_tile_objects(tmp_path / "s.zarr", tmp_path / "b.geojson.gz")
    assert first.path.read_bytes() == again.path.read_bytes()
    slide = write_tile_objects(tmp_path / "s.zarr", tmp_path / "c.geojson", frame="slide")
    assert [f["id"] for f in load(slide.path)] == [f["id"] for f in load(first.path)]
    other, _ = random_map(4, 60, 80)
    segmentation(tmp_path / "t.zarr", other, stored)
    ids = {f["properties"]["name"]: f["id"] for f in load(first.path)}
    features = load(write_tile_objects(tmp_path / "t.zarr", tmp_path / "d.json").path)
    shared = [f for f in features if f["properties"]["name"] in ids]
    assert len(shared) > 10
    assert all(ids[f["properties"]["name"]] == f["id"] for f in shared)


def test_no_tissue_and_ignored_classes_make_no_objects(tmp_path: Path) -> None:
    classes = (*CLASSES[:2], TissueClass(name="Ignore*", color=(180, 180, 180)))
    labels = np.zeros((60, 80), np.uint8)
    labels[:, 20:40] = 3
    labels[:, 60:] = 1
    grid = segmentation(tmp_path / "s.zarr", labels, None, classes=classes)
    result = write_tile_objects(tmp_path / "s.zarr", tmp_path / "t.json")
    assert validate(result.path) == []
    assert result.tiles == {"Tumor": len(load(result.path)), "Stroma": 0}
    assert result.left_out == len(grid.tiles) - len(load(result.path)) > 0
    shapes = [shapely.geometry.shape(f["geometry"]) for f in load(result.path)]
    assert all(shape.bounds[2] > 60 * 8 for shape in shapes)
    assert load(result.path)[0]["properties"]["measurements"].keys() == {
        "Prob: Tumor",
        "Prob: Stroma",
        "Prob: Ignore*",
        "Entropy %",
        "Tissue %",
    }
    segmentation(tmp_path / "empty.zarr", np.zeros((60, 80), np.uint8), None)
    empty = write_tile_objects(tmp_path / "empty.zarr", tmp_path / "e.json")
    assert load(empty.path) == []
    assert validate(empty.path) == []


def test_mistakes_are_told_and_leave_nothing(tmp_path: Path) -> None:
    labels, stored = random_map(2, 60, 80)
    segmentation(tmp_path / "s.zarr", labels, stored)
    with pytest.raises(ConfigError, match="should be 'qupath' or 'slide'"):
        write_tile_objects(tmp_path / "s.zarr", tmp_path / "t.json", frame="image")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="does not recognise this name"):
        write_tile_objects(tmp_path / "s.zarr", tmp_path / "t.gz")
    with pytest.raises(StoreError, match="no finished segmentation store"):
        write_tile_objects(tmp_path / "missing.zarr", tmp_path / "t.json")
    assert [path.name for path in tmp_path.iterdir()] == ["s.zarr"]
