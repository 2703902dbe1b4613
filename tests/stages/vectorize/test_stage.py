"""The stage: from a segmentation store to a file, its options, frames, errors and sizes."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely

from sampath_wsi.classes import TissueClass
from sampath_wsi.errors import ConfigError, StoreError
from sampath_wsi.options import VectorizeOptions
from sampath_wsi.stages.vectorize import stage
from sampath_wsi.stages.vectorize.stage import vectorize
from tests.geojson_validator import validate

from .maps import natural_map, write_segmentation


def load(path: Path) -> list[dict[str, Any]]:
    features: list[dict[str, Any]] = json.loads(gzip.decompress(path.read_bytes()))["features"]
    return features


def test_a_slide_from_store_to_valid_file(tmp_path: Path) -> None:
    labels = natural_map(300, 400, seed=1)
    write_segmentation(tmp_path / "s.zarr", labels)
    steps: list[tuple[object, ...]] = []
    result = vectorize(
        tmp_path / "s.zarr", tmp_path / "new" / "s.geojson.gz", progress=lambda *step: steps.append(step)
    )
    assert validate(result.path) == []
    features = load(result.path)
    passes = (("chunks surveyed", 1), ("chunks outlined", 1), ("objects written", len(features)))
    assert steps == [(done, total, what) for what, total in passes for done in range(total + 1)]
    assert sum(result.objects.values()) == len(features) > 10
    assert result.objects["Tumor"] == sum(f["properties"]["classification"]["name"] == "Tumor" for f in features)
    measured = sum(f["properties"]["measurements"]["Area µm^2"] for f in features)
    assert sum(result.area_um2.values()) == pytest.approx(measured)
    assert result.n_vertices == sum(len(r) for f in features for p in parts(f) for r in p)
    assert result.json_bytes == len(gzip.decompress(result.path.read_bytes()))
    assert 0 < result.changed_fraction < 0.005
    assert result.tolerance_um == 1.5
    assert result.warnings == ()
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["s.geojson.gz"]


def parts(feature: dict[str, Any]) -> list[Any]:
    geometry = feature["geometry"]
    return [geometry["coordinates"]] if geometry["type"] == "Polygon" else list(geometry["coordinates"])


def test_frames_with_pixels_that_are_not_square(tmp_path: Path) -> None:
    labels = np.zeros((60, 80), np.uint8)
    labels[20:40, 10:30] = 2
    write_segmentation(tmp_path / "s.zarr", labels, mpp=(0.2325, 0.25), qupath_offset=(1000, 24), corner=(37, 1200))
    slide = vectorize(tmp_path / "s.zarr", tmp_path / "a.geojson.gz", VectorizeOptions(frame="slide", tolerance=0))
    cropped = vectorize(tmp_path / "s.zarr", tmp_path / "b.geojson.gz", VectorizeOptions(tolerance=0))
    assert (slide.options.frame, cropped.options.frame) == ("slide", "qupath")
    assert slide.offset_level0_px == (37, 1200)
    assert cropped.offset_level0_px == (-963, 1176)
    assert cropped.scale_level0_px_per_map_px == pytest.approx((2 / 0.2325, 8))
    box = shapely.geometry.shape(load(slide.path)[0]["geometry"]).bounds
    assert box == pytest.approx((37 + 10 * 2 / 0.2325, 1360, 37 + 30 * 2 / 0.2325, 1520), abs=0.005)
    moved = shapely.geometry.shape(load(cropped.path)[0]["geometry"]).bounds
    assert moved == pytest.approx((box[0] - 1000, box[1] - 24, box[2] - 1000, box[3] - 24), abs=0.0051)
    assert load(slide.path)[0]["properties"]["measurements"]["Area µm^2"] == 20 * 20 * 4


def test_nothing_reaches_past_the_slide(tmp_path: Path) -> None:
    """37 x 29 map pixels of 8 level-0 pixels over a slide of 290 x 226: the last ones stick out."""
    path = tmp_path / "s.zarr"
    labels = natural_map(29, 37, seed=4)
    write_segmentation(path, labels)
    root = json.loads((path / "zarr.json").read_text())
    grid = root["attributes"]["sampath_wsi"]["grid"]
    grid["region_width_level0_px"], grid["region_height_level0_px"] = 290, 226
    (path / "zarr.json").write_text(json.dumps(root))
    result = vectorize(path, tmp_path / "s.geojson.gz", VectorizeOptions(tolerance=0, min_area=0, min_hole=0))
    assert validate(result.path) == []
    shapes = [shapely.geometry.shape(feature["geometry"]) for feature in load(result.path)]
    left, top, right, bottom = shapely.total_bounds(shapes)
    assert (left, top) >= (0, 0)
    assert (right, bottom) <= (290, 226)
    last_column, last_row = np.full(37, 8.0), np.full(29, 8.0)
    last_column[-1], last_row[-1] = 290 - 36 * 8, 226 - 28 * 8
    inside = (labels > 0) * np.outer(last_row, last_column)
    assert sum(shape.area for shape in shapes) == pytest.approx(inside.sum(), abs=0.5)
    assert shapely.union_all(shapes).area == pytest.approx(inside.sum(), abs=0.5)


def test_a_slide_without_tissue_gives_an_empty_valid_file(tmp_path: Path) -> None:
    write_segmentation(tmp_path / "s.zarr", np.zeros((40, 30), np.uint8))
    result = vectorize(tmp_path / "s.zarr", tmp_path / "s.geojson.gz")
    assert validate(result.path) == []
    assert load(result.path) == []
    assert sum(result.objects.values()) == result.n_vertices == 0


def test_equal_bytes_every_time_and_no_time_in_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_segmentation(tmp_path / "s.zarr", natural_map(130, 130, seed=2))
    first = vectorize(tmp_path / "s.zarr", tmp_path / "a.geojson.gz", VectorizeOptions(tolerance=0)).path.read_bytes()
    assert first[4:8] == bytes(4)
    monkeypatch.setattr(stage, "CHUNK_MAP_PX", 50)
    second = vectorize(
        tmp_path / "s.zarr", tmp_path / "other.geojson.gz", VectorizeOptions(tolerance=0)
    ).path.read_bytes()
    assert first == second


@pytest.mark.parametrize("objects", ["regions", "classes"])
@pytest.mark.parametrize("object_type", ["annotation", "detection"])
def test_kinds_of_objects(tmp_path: Path, objects: Any, object_type: Any) -> None:
    write_segmentation(tmp_path / "s.zarr", natural_map(120, 150, seed=4))
    result = vectorize(
        tmp_path / "s.zarr", tmp_path / "s.json", VectorizeOptions(objects=objects, object_type=object_type)
    )
    assert validate(result.path) == []
    features = json.loads(result.path.read_bytes())["features"]
    assert {f["properties"]["objectType"] for f in features} == {object_type}
    assert {f["properties"]["isLocked"] for f in features} == {object_type == "annotation"}
    if objects == "classes":
        assert len(features) == len({f["properties"]["classification"]["name"] for f in features})


def test_fifty_thousand_objects(tmp_path: Path) -> None:
    row, column = np.indices((901, 901)) % 4
    labels = np.where((row > 0) & (column > 0), (np.indices((901, 901)) // 4).sum(0) % 5 + 1, 0).astype(np.uint8)
    write_segmentation(tmp_path / "s.zarr", labels)
    result = vectorize(
        tmp_path / "s.zarr", tmp_path / "s.geojson.gz", VectorizeOptions(object_type="detection", tolerance=0)
    )
    assert sum(result.objects.values()) == 225 * 225
    assert validate(result.path) == []


def test_bad_paths_and_stores(tmp_path: Path) -> None:
    write_segmentation(tmp_path / "s.zarr", np.ones((600, 600), np.uint8))
    with pytest.raises(ConfigError, match="does not recognise this name"):
        vectorize(tmp_path / "s.zarr", tmp_path / "s.gz")
    with pytest.raises(StoreError, match="no finished segmentation store"):
        vectorize(tmp_path / "missing.zarr", tmp_path / "s.geojson.gz")
    write_segmentation(tmp_path / "t.zarr", np.full((8, 8), 6, np.uint8))
    with pytest.raises(StoreError, match="label 6, but there are only 5 classes"):
        vectorize(tmp_path / "t.zarr", tmp_path / "s.geojson.gz")
    write_segmentation(tmp_path / "u.zarr", np.ones((8, 8), np.uint8), np.zeros((4, 8, 8), np.uint8))
    with pytest.raises(StoreError, match="do not fit 5 classes"):
        vectorize(tmp_path / "u.zarr", tmp_path / "s.geojson.gz")
    record = json.loads((tmp_path / "t.zarr" / "zarr.json").read_text())
    del record["attributes"]["sampath_wsi"]["model"]["classes"]
    (tmp_path / "t.zarr" / "zarr.json").write_text(json.dumps(record))
    with pytest.raises(StoreError, match="record is damaged"):
        vectorize(tmp_path / "t.zarr", tmp_path / "s.geojson.gz")
    for shard in (tmp_path / "s.zarr" / "labels" / "classes" / "0" / "c").rglob("*"):
        if shard.is_file():
            shard.write_bytes(shard.read_bytes()[:-40] + bytes(40))
    with pytest.raises(StoreError, match=r"s\.zarr: chunk 0/0 of the array 'labels/classes/0' is damaged"):
        vectorize(tmp_path / "s.zarr", tmp_path / "s.geojson.gz")
    assert not list(tmp_path.glob("*geojson*"))
    assert not list(tmp_path.glob(".*"))


def test_an_older_result_stays_until_the_new_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_segmentation(tmp_path / "s.zarr", natural_map(60, 60, seed=0))
    out = tmp_path / "s.geojson.gz"
    out.write_bytes(b"older")

    def fail(*_: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("sampath_wsi.qupath.ObjectWriter.write", fail)
    with pytest.raises(OSError, match="no space left"):
        vectorize(tmp_path / "s.zarr", out)
    assert out.read_bytes() == b"older"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.geojson.gz", "s.zarr"]


def test_what_is_uncomfortable_in_qupath_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_segmentation(tmp_path / "s.zarr", natural_map(200, 200, seed=6, sigma=4))
    for limit in ("_MANY_VERTICES", "_LARGE_JSON_BYTES", "_NOTABLE_CHANGE"):
        monkeypatch.setattr(stage, limit, 0)
    few = VectorizeOptions(max_objects=1)
    first, second, third, fourth = vectorize(tmp_path / "s.zarr", tmp_path / "s.geojson.gz", few).warnings
    assert "annotations, more than 1: QuPath paints each of them" in first
    assert "vertices: QuPath takes seconds" in second
    assert "MB of GeoJSON" in third
    assert "the prediction is noisy" in fourth
    detections = vectorize(
        tmp_path / "s.zarr", tmp_path / "s.geojson.gz", VectorizeOptions(object_type="detection")
    ).warnings
    assert detections == (second, third, fourth)
    larger = VectorizeOptions(object_type="detection", min_area=26)
    assert vectorize(tmp_path / "s.zarr", tmp_path / "s.geojson.gz", larger).warnings == (second, third)
    monkeypatch.setattr(stage, "_NOTABLE_WANTED_CHANGE", 0)
    assert len(vectorize(tmp_path / "s.zarr", tmp_path / "s.geojson.gz", larger).warnings) == 3


@pytest.mark.parametrize("object_type", ["annotation", "detection"])
def test_too_many_objects_are_told_and_all_are_written(tmp_path: Path, object_type: Any) -> None:
    write_segmentation(tmp_path / "s.zarr", natural_map(200, 200, seed=6, sigma=4))
    out = tmp_path / "s.geojson"
    options: dict[str, Any] = {"object_type": object_type, "min_area": 0, "min_hole": 0}
    count = sum(vectorize(tmp_path / "s.zarr", out, VectorizeOptions(**options)).objects.values())
    (warning,) = vectorize(tmp_path / "s.zarr", out, VectorizeOptions(**options, max_objects=count - 1)).warnings
    assert warning.startswith(f"{count} {object_type}s, more than {count - 1}: QuPath ")
    assert len(json.loads(out.read_bytes())["features"]) == count
    for fine in (count, 0, None):
        assert vectorize(tmp_path / "s.zarr", out, VectorizeOptions(**options, max_objects=fine)).warnings == ()


def test_large_objects_are_cut(tmp_path: Path) -> None:
    """From the store to the file; tests/stages/vectorize/test_pieces.py has the geometry."""
    write_segmentation(tmp_path / "s.zarr", natural_map(400, 400, seed=1, sigma=3, classes=2), qupath_offset=(7, 3))
    whole = vectorize(tmp_path / "s.zarr", tmp_path / "w.geojson.gz", VectorizeOptions(max_vertices=0))
    cut = vectorize(tmp_path / "s.zarr", tmp_path / "c.geojson.gz", VectorizeOptions(max_vertices=300))
    assert validate(cut.path) == []
    counts = [len(shapely.get_coordinates(shapely.geometry.shape(f["geometry"]))) for f in load(cut.path)]
    assert max(counts) <= 300
    assert cut.cut_objects >= 1
    assert (whole.cut_objects, whole.pieces) == (0, 0)
    assert sum(cut.objects.values()) - cut.pieces == sum(whole.objects.values()) - cut.cut_objects
    assert cut.area_um2 == whole.area_um2
    areas = [sum(f["properties"]["measurements"]["Area µm^2"] for f in load(r.path)) for r in (whole, cut)]
    assert areas[0] == pytest.approx(areas[1], abs=0.001 * cut.pieces)


def test_the_classes_of_the_store_decide_names_and_colours(tmp_path: Path) -> None:
    classes = (TissueClass(name="Drüse", color=(1, 2, 3)), TissueClass(name="Ignore*", color=(180, 180, 180)))
    labels = np.ones((30, 30), np.uint8)
    labels[10:20, 10:20] = 2
    write_segmentation(tmp_path / "s.zarr", labels, classes=classes)
    result = vectorize(tmp_path / "s.zarr", tmp_path / "s.geojson.gz")
    (feature,) = load(result.path)
    assert feature["properties"]["classification"] == {"name": "Drüse", "color": [1, 2, 3]}
    assert len(feature["geometry"]["coordinates"]) == 2
    assert feature["properties"]["measurements"] == {
        "Area µm^2": 3200.0,
        "Mean probability": 1.0,
        "Prob: Drüse": 1.0,
        "Prob: Ignore*": 0.0,
    }
    assert result.objects == {"Drüse": 1, "Ignore*": 0}
    assert result.area_um2 == {"Drüse": 3200.0, "Ignore*": 400.0}
    assert validate(result.path) == []
