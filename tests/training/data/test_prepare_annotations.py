"""Annotated slides: whatever QuPath draws becomes the right labels in the right places."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from sampath_wsi.errors import AnnotationError, ConfigError, DataError, SlideError
from sampath_wsi.geometry import Box
from sampath_wsi.qupath import read_annotations
from sampath_wsi.qupath.drawing import read_drawing
from sampath_wsi.slides import SlideReader, inspect_slide
from sampath_wsi.training.data.prepare.annotations import plan_fields, prepare_annotations
from sampath_wsi.training.data.prepare.drawn import Painter
from sampath_wsi.training.data.prepare.label_map import LabelMap
from sampath_wsi.training.data.prepared import PreparedData, read_prepared

SIDE = 600


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide of 0.5 um/px whose red and green are the column and the row, by four."""
    y, x = np.mgrid[:SIDE, :SIDE]
    pixels = np.stack([x // 4, y // 4, np.zeros_like(x)], axis=2).astype(np.uint8)
    path = tmp_path_factory.mktemp("slide") / "slide.tif"
    per_cm = 10_000 / 0.5
    tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb", resolution=(per_cm, per_cm), resolutionunit=3)
    return path


def feature(geometry: dict[str, Any] | shapely.Geometry, name: str | None, **properties: Any) -> dict[str, Any]:
    if isinstance(geometry, shapely.Geometry):
        geometry = json.loads(shapely.to_geojson(geometry))
    classified = {} if name is None else {"classification": {"name": name}}
    return {"type": "Feature", "geometry": geometry, "properties": {**classified, **properties}}


def write_sheet(folder: Path, slide: Path, features: list[dict[str, Any]], extra: dict[str, str] | None = None) -> Path:
    drawn = folder / "drawn.geojson"
    drawn.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    row = {"slide": "s1", "path": str(slide), "annotations": str(drawn), **(extra or {})}
    sheet = folder / "sheet.csv"
    sheet.write_text(",".join(row) + "\n" + ",".join(row.values()) + "\n")
    return sheet


def joined(data: PreparedData, size_px: int = SIDE) -> np.ndarray:
    """The labels of all tiles in the frame of the slide; tiles that overlap agree."""
    whole = np.full((size_px, size_px), 255, np.uint8)
    for sample in data.samples:
        _, labels = data.read(sample)
        field_x, field_y = (int(part[1:]) for part in sample.field.split("_")[-2:])
        x, y = field_x + sample.x_px, field_y + sample.y_px
        part = whole[y : y + labels.shape[0], x : x + labels.shape[1]]
        assert ((part == 255) | (part == labels)).all()
        part[:] = labels
    return np.where(whole == 255, 0, whole)


def centres_in(geometry: shapely.Geometry, size_px: int = SIDE, scale: float = 1) -> np.ndarray:
    y, x = np.mgrid[:size_px, :size_px]
    return np.asarray(shapely.contains_xy(geometry, (x + 0.5) * scale, (y + 0.5) * scale))


CIRCLE = shapely.Point(250.3, 200.7).buffer(90, 64)
RING = shapely.Point(300, 420).buffer(100, 32).difference(shapely.Point(300, 420).buffer(40, 32))


def test_labels_are_those_of_centres_and_tiles_show_the_slide(slide: Path, tmp_path: Path) -> None:
    sheet = write_sheet(tmp_path, slide, [feature(CIRCLE, "Tumor", color=[9, 8, 7]), feature(RING, "Stroma")])
    summary = prepare_annotations(sheet, tmp_path / "out", tile_px=128)
    data = read_prepared(tmp_path / "out")
    assert [(c.name, c.color) for c in data.info.classes] == [("Stroma", (200, 0, 0)), ("Tumor", (9, 8, 7))]
    assert data.info.mpp == 0.5
    assert summary.warnings == ()
    assert {(s.group, s.split) for s in data.samples} == {("s1", "train")}
    wanted = np.where(centres_in(RING), 1, np.where(centres_in(CIRCLE), 2, 0))
    found = joined(data)
    assert (found != wanted).sum() == 0
    reader = SlideReader(inspect_slide(slide))
    for sample in data.samples:
        image, labels = data.read(sample)
        assert labels.any()
        assert labels.shape == (128, 128)
        x, y = (int(part[1:]) for part in sample.sample.split("_")[-2:])
        np.testing.assert_array_equal(image, reader.read(Box(x, y, 128, 128), (128, 128)))
        assert image[0, 0, 0] == x // 4


def test_another_resolution(slide: Path, tmp_path: Path) -> None:
    sheet = write_sheet(tmp_path, slide, [feature(CIRCLE, "Tumor")])
    prepare_annotations(sheet, tmp_path / "out", tile_px=64, mpp=1.0)
    assert (joined(read_prepared(tmp_path / "out"), SIDE // 2) != centres_in(CIRCLE, SIDE // 2, 2)).sum() == 0
    summary = prepare_annotations(sheet, tmp_path / "out", tile_px=64, mpp=0.25)
    assert "slide s1 has 0.5 um/px only: its tiles of 0.25 um/px are blurred" in summary.warnings


def test_the_smaller_is_on_top_and_ignored_classes_clear(slide: Path, tmp_path: Path) -> None:
    big, middle, hole = shapely.box(50, 50, 350, 350), shapely.box(100, 100, 250, 250), shapely.box(120, 120, 180, 300)
    features = [
        feature(hole, "Ignore*"),
        feature(middle, "Necrosis"),
        feature(big, "Tumor"),
        feature(shapely.box(0, 0, 500, 500), "Region*"),
        feature(middle, "Stroma"),
    ]
    prepare_annotations(write_sheet(tmp_path, slide, features), tmp_path / "out", tile_px=512)
    data = read_prepared(tmp_path / "out")
    assert [c.name for c in data.info.classes] == ["Necrosis", "Stroma", "Tumor"]
    wanted = np.where(centres_in(big), 3, 0)
    wanted[centres_in(middle)] = 2
    wanted[centres_in(hole)] = 0
    np.testing.assert_array_equal(joined(data), wanted)


def test_nothing_is_labelled_outside_of_regions(slide: Path, tmp_path: Path) -> None:
    big, inner = shapely.box(50, 50, 350, 350), shapely.box(60, 60, 300, 200)
    left, right = shapely.box(0, 0, 200, 500), shapely.box(250, 150, 290, 190)
    features = [
        feature(left, "Region*"),
        feature(inner, "Stroma", measurements={"a": float("nan")}),
        feature(big, "Tumor"),
        feature(right, "Region*"),
        feature(shapely.box(400, 400, 500, 500), "Tumor"),
    ]
    summary = prepare_annotations(write_sheet(tmp_path, slide, features), tmp_path / "out", tile_px=512)
    assert [w for w in summary.warnings if "Region" in w] == [
        f"{tmp_path / 'drawn.geojson'}: 1 annotations lie outside of Region*: left out"
    ]
    wanted = np.where(centres_in(big), 2, 0)
    wanted[centres_in(inner)] = 1
    wanted[~(centres_in(left) | centres_in(right))] = 0
    np.testing.assert_array_equal(joined(read_prepared(tmp_path / "out")), wanted)


def test_every_name_of_254_classes_works(slide: Path, tmp_path: Path) -> None:
    boxes = [shapely.box(x, y, x + 20, y + 20) for y in range(0, 480, 30) for x in range(0, 480, 30)][:254]
    features = [feature(box, f"c{k:03} {'Drüse 腺' if k else '=<b>'}") for k, box in enumerate(boxes)]
    prepare_annotations(write_sheet(tmp_path, slide, features), tmp_path / "out", tile_px=512)
    data = read_prepared(tmp_path / "out")
    assert len(data.info.classes) == 254
    labels = joined(data)
    assert [labels[int(box.centroid.y), int(box.centroid.x)] for box in boxes] == list(range(1, 255))


def test_what_is_no_area_or_no_annotation_is_counted(slide: Path, tmp_path: Path) -> None:
    bowtie = {"type": "Polygon", "coordinates": [[[10, 10], [90, 90], [90, 10], [10, 90], [10, 10]]]}
    features = [
        feature(CIRCLE, "Tumor"),
        feature(bowtie, "Tumor"),
        feature(shapely.Point(5, 5), "Tumor"),
        feature(shapely.LineString([(0, 0), (50, 50)]), "Tumor"),
        feature(shapely.box(9000, 9000, 9100, 9100), "Tumor"),
        feature(shapely.box(300, 300, 400, 400), "Tumor", objectType="detection"),
        feature(shapely.box(400, 400, 500, 500), None),
        feature(shapely.GeometryCollection([shapely.Point(1, 1), shapely.box(500, 500, 540, 540)]), "Tumor"),
    ]
    summary = prepare_annotations(write_sheet(tmp_path, slide, features), tmp_path / "out", tile_px=64)
    text = "\n".join(summary.warnings)
    for part in (
        "of 8 objects 1 are no annotations: left out",
        "of 8 objects 2 are points or lines: left out",
        "of 8 objects 1 lie outside the slide: left out",
        "1 annotations cross themselves and were mended",
        "1 annotations have no class: left out",
    ):
        assert part in text
    found = joined(read_prepared(tmp_path / "out"))
    assert found[520, 520] == 1
    assert found[350, 350] == found[450, 450] == 0


def test_a_label_map_maps_names(slide: Path, tmp_path: Path) -> None:
    classes = [{"name": "Tumor", "color": [1, 2, 3], "names": ["Tumour"]}, {"name": "Rest", "color": [4, 5, 6]}]
    label_map = {"name": "mine", "classes": classes, "unclassified": "Rest", "ignored_names": ["Fold"], "tile_px": 100}
    features = [
        feature(shapely.box(0, 0, 50, 50), "Tumour"),
        feature(shapely.box(60, 0, 90, 50), None),
        feature(shapely.box(0, 0, 20, 20), "Fold"),
    ]
    sheet = write_sheet(tmp_path, slide, features, {"group": "p7", "split": "test"})
    prepare_annotations(sheet, tmp_path / "out", label_map=LabelMap.model_validate(label_map))
    data = read_prepared(tmp_path / "out")
    assert {(s.group, s.split, s.field) for s in data.samples} == {("p7", "test", "s1_x0_y0")}
    assert {data.sizes_px[s.sample] for s in data.samples} == {(100, 100)}
    labels = joined(data)
    assert (labels[10, 10], labels[30, 30], labels[30, 70]) == (0, 1, 2)
    sheet = write_sheet(tmp_path, slide, [feature(CIRCLE, "Stroma")])
    with pytest.raises(
        DataError, match=r"drawn\.geojson: the class 'Stroma' is unknown \(mine has Tumor, Tumour, Rest"
    ):
        prepare_annotations(sheet, tmp_path / "out", label_map=LabelMap.model_validate(label_map))


def test_bad_input_is_named_in_one_line(slide: Path, tmp_path: Path) -> None:
    def prepare(features: list[dict[str, Any]], extra: dict[str, str] | None = None) -> None:
        prepare_annotations(write_sheet(tmp_path, slide, features, extra), tmp_path / "out")

    good = [feature(CIRCLE, "Tumor")]
    with pytest.raises(AnnotationError, match=r"of its 1 objects none is an area on slide\.tif \(1 lie outside"):
        prepare([feature(shapely.box(9000, 0, 9010, 10), "Tumor")])
    with pytest.raises(DataError, match="no annotation has a class"):
        prepare([feature(CIRCLE, None)])
    with pytest.raises(DataError, match="'Tumor: Positive' is a derived one"):
        prepare([feature(CIRCLE, "Tumor: Positive")])
    with pytest.raises(DataError, match=r"the class 'a\\tb' contains control characters"):
        prepare([feature(CIRCLE, "a\tb"), feature(CIRCLE, "S")])
    with pytest.raises(DataError, match="annotations have 300 classes, and a model at most 254"):
        prepare([feature(CIRCLE, f"c{k:03}") for k in range(300)])
    with pytest.raises(AnnotationError, match=r"of its 0 objects none is an area"):
        prepare([])
    with pytest.raises(DataError, match=r"nowhere\.svs is missing\. Correct the paths"):
        prepare(good, {"path": "nowhere.svs"})
    with pytest.raises(DataError, match=r"a\.svs is missing \(and 1 more of 2 files\)"):
        prepare(good, {"path": "a.svs", "annotations": "b.geojson"})
    with pytest.raises(ConfigError, match="slide s1 names no annotations"):
        prepare(good, {"annotations": ""})
    with pytest.raises(ConfigError, match="mpp"):
        prepare(good, {"mpp": "fine"})
    with pytest.raises(ConfigError, match="no such sheet"):
        prepare_annotations(tmp_path / "none.csv", tmp_path / "out")
    (tmp_path / "broken.svs").write_text("x")
    with pytest.raises(SlideError, match=r"broken\.svs: not a slide"):
        prepare(good, {"path": str(tmp_path / "broken.svs")})
    (tmp_path / "bad.geojson").write_text("{")
    with pytest.raises(AnnotationError, match=r"bad\.geojson: not valid JSON"):
        prepare(good, {"annotations": str(tmp_path / "bad.geojson")})
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.partial").exists()


def test_qupath_frame_is_moved_to_the_slide(slide: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    info = replace(inspect_slide(slide), vendor="mirax", bounds_level0_px=(100, 30, 400, 400))
    write_sheet(tmp_path, slide, [feature(shapely.box(0, 0, 10, 20), "Tumor")])
    drawing = read_drawing(tmp_path / "drawn.geojson", info)
    assert drawing.annotations[0].geometry.bounds == (100, 30, 110, 50)


def _floats(low: float, high: float) -> st.SearchStrategy[float]:
    # Numbers such as 1e-231 overflow in the union that the test itself computes.
    return st.floats(low, high).map(lambda value: round(value, 6))


boxes = st.tuples(_floats(-50, 900), _floats(-50, 700), _floats(0.5, 300), _floats(0.5, 300))


@given(st.lists(boxes, min_size=1, max_size=12), st.integers(1, 400))
def test_fields_are_disjoint_cover_everything_and_hold_a_tile(
    drawn: list[tuple[float, float, float, float]], tile_px: int
) -> None:
    size = 800, 600
    bounds = np.array([(x, y, x + w, y + h) for x, y, w, h in drawn])
    fields = plan_fields(bounds, size, tile_px)
    areas = [shapely.box(r.x_px, r.y_px, r.x_px + r.width_px, r.y_px + r.height_px) for r in fields]
    assert shapely.union_all(areas).area == sum(a.area for a in areas)
    slide = shapely.box(0, 0, *size)
    assert all(slide.contains(a) for a in areas)
    assert all(r.width_px >= min(tile_px, 800) and r.height_px >= min(tile_px, 600) for r in fields)
    rest = shapely.union_all(shapely.box(*bounds.T)).intersection(slide).difference(shapely.union_all(areas))
    assert rest.area < 1e-6


def test_painter_of_nothing_is_unlabelled() -> None:
    painter = Painter([shapely.box(0, 0, 5, 5)], [0])
    assert painter.bounds_level0_px().shape == (0, 4)
    assert not painter.paint(Box(0, 0, 8, 8), (8, 8)).any()
    assert plan_fields(painter.bounds_level0_px(), (10, 10), 4) == []


def real_drawing(shared_data: Path, folder: Path) -> Path:
    """Every shape of the real exports, moved onto the real slide; the class is the name of the file."""
    features = []
    for k, path in enumerate(sorted((shared_data / "geojson").glob("*json"))):
        document = json.loads(path.read_text())
        found = document if isinstance(document, list) else document.get("features", [document])
        left, top = np.min([shapely.geometry.shape(f["geometry"]).bounds[:2] for f in found], axis=0)
        dx, dy = 60 + k % 4 * 500 - left, 100 + k // 4 * 900 - top
        for entry in found:
            entry["geometry"]["coordinates"] = moved(entry["geometry"]["coordinates"], dx, dy)
            entry["properties"]["classification"] = {"name": path.name.split(".")[0]}
            features.append(entry)
    (folder / "real.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return folder / "real.geojson"


def moved(coordinates: Any, dx: float, dy: float) -> Any:
    if isinstance(coordinates[0], list):
        return [moved(part, dx, dy) for part in coordinates]
    return [coordinates[0] + dx, coordinates[1] + dy]


def test_every_shape_of_qupath_on_a_real_slide(shared_data: Path, tmp_path: Path) -> None:
    drawn = real_drawing(shared_data, tmp_path)
    path = shared_data / "slides" / "CMU-1-Small-Region.svs"
    info = inspect_slide(path)
    sheet = tmp_path / "sheet.tsv"
    sheet.write_text(f"slide\tpath\tannotations\ncmu\t{path}\t{drawn}\n")
    summary = prepare_annotations(sheet, tmp_path / "out", tile_px=512, mpp=1.0)
    data = read_prepared(tmp_path / "out")
    names = [c.name for c in data.info.classes]
    assert {"qupath-ellipse", "qupath-brush", "qupath-wand", "qupath05", "large_image_sample"} <= set(names)
    assert not {"qupath-line", "qupath-polyline", "qupath-point", "qupath-multipoint"} & set(names)
    assert any("4 are points or lines: left out" in warning for warning in summary.warnings)
    found = joined(data, 1500)
    wanted = np.zeros_like(found)
    width, height = (int(n * mpp) for n, mpp in zip(info.size_level0_px, info.mpp, strict=True))
    for area, name in sorted(((a.geometry, a.class_name) for a in read_annotations(drawn)), key=lambda a: -a[0].area):
        left, top, right, bottom = (int(v * info.mpp[0]) for v in area.bounds)
        y, x = np.mgrid[top : max(top, min(bottom + 2, height)), left : max(left, min(right + 2, width))]
        inside = shapely.contains_xy(area, (x + 0.5) / info.mpp[0], (y + 0.5) / info.mpp[1])
        wanted[y[inside], x[inside]] = names.index(str(name)) + 1 if area.area else 0
    # Beyond the tiles nothing is labelled; a centre that lies on an outline may fall to either side.
    assert (found > 0).sum() > 50_000
    assert (found != wanted).sum() <= 5
