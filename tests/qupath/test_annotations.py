"""Annotations read, in all the forms in which QuPath and others have written them."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from sampath_wsi.errors import AnnotationError
from sampath_wsi.qupath import Annotation, read_annotations
from sampath_wsi.qupath.annotations import read_objects

SQUARE = {"type": "Polygon", "coordinates": [[[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]]}
HOLED = {"type": "Polygon", "coordinates": [SQUARE["coordinates"][0], [[2, 2], [2, 4], [4, 4], [4, 2], [2, 2]]]}


def feature(geometry: Any = SQUARE, **properties: Any) -> dict[str, Any]:
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def read(tmp_path: Path, document: Any, name: str = "a.geojson") -> list[Annotation]:
    text = document if isinstance(document, str) else json.dumps(document)
    data = text.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return read_annotations(tmp_path / name)


def only(tmp_path: Path, document: Any) -> Annotation:
    (annotation,) = read(tmp_path, document)
    return annotation


@pytest.mark.parametrize("name", ["a.geojson", "a.json", "a.geojson.gz"])
def test_every_wrapping(tmp_path: Path, name: str) -> None:
    two = [feature(name="a"), feature(name="b")]
    collection = {"type": "FeatureCollection", "features": two}
    for document in (two, collection, [collection]):
        assert [a.name for a in read(tmp_path, document, name)] == ["a", "b"]
    assert [a.name for a in read(tmp_path, two[0], name)] == ["a"]
    assert read(tmp_path, SQUARE, name)[0].geometry.area == 100
    assert read(tmp_path, [], name) == read(tmp_path, {"type": "FeatureCollection", "features": []}, name) == []


def test_a_byte_order_mark_is_no_obstacle(tmp_path: Path) -> None:
    assert only(tmp_path, "\ufeff" + json.dumps(feature())).geometry.area == 100


@pytest.mark.parametrize(
    ("classification", "class_name", "colour"),
    [
        ({"name": "Tumor", "color": [200, 0, 0]}, "Tumor", (200, 0, 0)),
        ({"name": "Tumor", "color": [200, 0, 0, 255]}, "Tumor", (200, 0, 0)),
        ({"name": "Tumor", "colorRGB": -3670016}, "Tumor", (200, 0, 0)),
        ({"name": "Tumor", "color": 13107200}, "Tumor", (200, 0, 0)),
        ({"name": "Tumor"}, "Tumor", None),
        ({"names": ["Tumor", "Positive"], "color": [1, 2, 3]}, "Tumor: Positive", (1, 2, 3)),
        ({"name": "Tumor: Positive"}, "Tumor: Positive", None),
        ("Tumor", "Tumor", None),
        (" ", None, None),
        ('{"name": "Tumor", "color": [200, 0, 0]}', "Tumor", (200, 0, 0)),
        (math.nan, None, None),
        ({"name": None}, None, None),
        (None, None, None),
    ],
)
def test_every_classification(tmp_path: Path, classification: Any, class_name: str | None, colour: Any) -> None:
    annotation = only(tmp_path, feature(classification=classification))
    assert (annotation.class_name, annotation.colour) == (class_name, colour)


def test_an_object_may_have_a_colour_of_its_own(tmp_path: Path) -> None:
    assert only(tmp_path, feature(color=[1, 2, 3])).colour == (1, 2, 3)
    both = feature(color=[1, 2, 3], classification={"name": "A", "color": [4, 5, 6]})
    assert only(tmp_path, both).colour == (4, 5, 6)


def test_types_of_objects(tmp_path: Path) -> None:
    assert only(tmp_path, feature(objectType="detection")).object_type == "detection"
    assert only(tmp_path, feature(object_type="tile")).object_type == "tile"
    assert only(tmp_path, {**feature(), "id": "PathCellObject"}).object_type == "cell"
    assert only(tmp_path, {**feature(), "id": "0b2d"}).object_type == "annotation"
    assert only(tmp_path, {"type": "Feature", "geometry": SQUARE}).object_type == "annotation"


def test_cells_have_a_nucleus(tmp_path: Path) -> None:
    nucleus = {"type": "Polygon", "coordinates": [[[4, 4], [6, 4], [6, 6], [4, 6], [4, 4]]]}
    inside = only(tmp_path, {**feature(objectType="cell"), "nucleusGeometry": nucleus})
    assert inside.nucleus is not None
    assert inside.nucleus.area == 4
    assert only(tmp_path, feature(nucleusGeometry=nucleus)).nucleus == inside.nucleus
    assert only(tmp_path, feature()).nucleus is None


def test_holes_are_kept(tmp_path: Path) -> None:
    assert only(tmp_path, feature(HOLED)).geometry.area == 96
    many = {"type": "MultiPolygon", "coordinates": [HOLED["coordinates"], [[[20, 0], [21, 0], [21, 1], [20, 0]]]]}
    assert only(tmp_path, feature(many)).geometry.area == 96.5


@pytest.mark.parametrize(
    ("kind", "coordinates"),
    [
        ("Point", [1, 2]),
        ("MultiPoint", [[1, 2], [3, 4]]),
        ("LineString", [[1, 2], [3, 4]]),
        ("MultiLineString", [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]),
    ],
)
def test_what_has_no_area_is_returned_and_says_so(tmp_path: Path, kind: str, coordinates: Any) -> None:
    annotation = only(tmp_path, feature({"type": kind, "coordinates": coordinates}))
    assert annotation.geometry.geom_type == kind
    assert not annotation.has_area
    assert only(tmp_path, feature()).has_area


def test_collections_of_geometries(tmp_path: Path) -> None:
    mixed = {"type": "GeometryCollection", "geometries": [SQUARE, {"type": "Point", "coordinates": [1, 2]}]}
    annotation = only(tmp_path, feature(mixed))
    assert annotation.geometry.area == 100
    assert annotation.has_area


def test_an_ellipse_is_one_whatever_its_corners(tmp_path: Path) -> None:
    box = {"type": "Polygon", "isEllipse": True, "coordinates": [[[0, 0], [20, 0], [20, 10], [0, 10], [0, 0]]]}
    ellipse = only(tmp_path, feature(box)).geometry
    assert ellipse.area == pytest.approx(math.pi * 10 * 5, rel=1e-3)
    assert ellipse.bounds == pytest.approx((0, 0, 20, 10))
    assert only(tmp_path, feature({**box, "isEllipse": False})).geometry.area == 200


def test_third_coordinates_and_planes_do_no_harm(tmp_path: Path) -> None:
    flat = {"type": "Polygon", "plane": {"c": -1, "z": 0, "t": 0}, "coordinates": [[[0, 0, 5], [2, 0, 5], [0, 2, 5]]]}
    geometry = only(tmp_path, feature(flat)).geometry
    assert not geometry.has_z
    assert geometry.area == 2


def test_bow_ties_are_mended_and_marked(tmp_path: Path) -> None:
    bow_tie = {"type": "Polygon", "coordinates": [[[0, 0], [4, 4], [4, 0], [0, 4], [0, 0]]]}
    annotation = only(tmp_path, feature(bow_tie))
    assert annotation.repaired
    assert annotation.geometry.is_valid
    assert annotation.geometry.area == 8
    line = {"type": "Polygon", "coordinates": [[[0, 0], [4, 4], [2, 2], [0, 0]]]}
    assert not only(tmp_path, feature(line)).has_area
    assert not only(tmp_path, feature()).repaired


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("3", "something other than a feature"),
        ([[feature()]], "something other than a feature"),
        ({"type": "Topology"}, "'Topology' is not a type of GeoJSON"),
        ({"annotations": []}, "'None' is not a type of GeoJSON"),
        ({"type": "FeatureCollection"}, "not a list of features"),
        ({"type": "FeatureCollection", "features": [SQUARE]}, "not a list of features"),
        (feature(None), "feature 0: it has no geometry"),
        (feature({"type": "Circle"}), "feature 0: its geometry has the type 'Circle'"),
        ({**feature({**SQUARE, "coordinates": [[[math.nan, 0], [1, 0], [1, 1]]]})}, "feature 0"),
        (feature(classification="{"), "feature 0"),
        (feature({"type": "Polygon", "coordinates": []}), "no coordinates"),
        (feature({"type": "Polygon", "coordinates": [[]]}), "its Polygon"),
        (feature({"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}), "at least 4 positions"),
        (feature({"type": "Polygon", "coordinates": [[[0, 0], [1, 1], "a"]]}), "feature 0"),
        (feature({"type": "Polygon", "coordinates": [[[0], [1], [2]]]}), "feature 0"),
        (feature({"type": "Point", "coordinates": [[1, 2]]}), "its Point"),
        (feature({"type": "Point", "coordinates": ["a", "b"]}), "feature 0"),
        (feature({"type": "GeometryCollection"}), "GeometryCollection"),
        ({"type": "Feature", "geometry": SQUARE, "properties": []}, "properties is not an object"),
        (feature(classification=7), "classification is not an object"),
        (feature(classification={"name": 7}), "name of its classification is not a text"),
        (feature(classification={"names": "Tumor"}), "not a list of texts"),
        (feature(objectType=3), "objectType is not a text"),
    ],
)
def test_errors_are_one_line_with_file_and_feature(tmp_path: Path, document: Any, message: str) -> None:
    with pytest.raises(AnnotationError) as caught:
        read(tmp_path, document)
    assert message in str(caught.value)
    assert str(tmp_path / "a.geojson") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500 + len(str(tmp_path))


def test_measurements_may_be_nan(tmp_path: Path) -> None:
    (tmp_path / "a.geojson").write_text(json.dumps(feature(measurements={"a": math.nan, "b": -math.inf})))
    objects = read_objects(tmp_path / "a.geojson")
    assert [a.geometry.area for a in objects.annotations] == [100]
    assert objects.warnings == ()


def test_objects_that_cannot_be_read_are_counted_once(tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"
    nothing = {"type": "Polygon", "coordinates": [[[5, 5], [6, 6]]]}
    odd = [feature(color="red"), feature(classification={"name": "A", "color": [300, 0, 0]})]
    features = [feature(), feature(None, name="label"), feature(nothing), *odd, feature(nothing)]
    path.write_text(json.dumps(features))
    objects = read_objects(path)
    assert [(a.class_name, a.colour, a.geometry.area) for a in objects.annotations] == [
        (None, None, 100),
        (None, None, 100),
        ("A", None, 100),
    ]
    assert objects.warnings == (
        f"{path}: of 6 objects 3 cannot be read: left out (the first is feature 1: it has no geometry)",
        f"{path}: of 6 objects 2 have a colour that is none: it is ignored (the first is feature 3: 'red' is not a "
        "colour)",
    )
    assert len(read_annotations(path)) == 3


def test_only_objects_of_a_type(tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"
    others = [feature(objectType="cell"), feature(None, objectType="root"), {**feature(), "id": "PathTileObject"}]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [*others, feature(), *others]}))
    objects = read_objects(path, "annotation")
    assert (len(objects.annotations), objects.count, objects.unwanted, objects.warnings) == (1, 7, 6, ())
    path.write_text(json.dumps(others[0]))
    assert read_objects(path, "annotation").unwanted == 1
    path.write_text(json.dumps([feature(objectType=3), feature()]))
    assert "objectType is not a text" in read_objects(path, "annotation").warnings[0]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="No such file"):
        read_annotations(tmp_path / "none.geojson")
    with pytest.raises(AnnotationError, match="directory"):
        read_annotations(tmp_path)
    (tmp_path / "latin.geojson").write_bytes('"Drüse"'.encode("latin-1"))
    with pytest.raises(AnnotationError, match="not UTF-8"):
        read_annotations(tmp_path / "latin.geojson")
    whole = gzip.compress(json.dumps([feature()] * 50).encode())
    for damaged in (whole[:-9], whole[:20] + bytes(20) + whole[40:]):
        (tmp_path / "cut.geojson.gz").write_bytes(damaged)
        with pytest.raises(AnnotationError, match="damaged"):
            read_annotations(tmp_path / "cut.geojson.gz")
    (tmp_path / "large.geojson.gz").write_bytes(whole)
    with pytest.raises(AnnotationError, match=r"more than 0 GiB of GeoJSON\. Split it"):
        read_annotations(tmp_path / "large.geojson.gz", max_bytes=1000)


def test_deep_collections_are_refused(tmp_path: Path) -> None:
    geometry: Any = SQUARE
    for _ in range(12):
        geometry = {"type": "GeometryCollection", "geometries": [geometry]}
    with pytest.raises(AnnotationError, match="nested too deeply"):
        read(tmp_path, feature(geometry))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-300, 300) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150)
@given(
    kind=st.sampled_from(["Point", "LineString", "Polygon", "MultiPolygon", "GeometryCollection", "x"]),
    coordinates=json_values,
    properties=json_values,
    classification=json_values,
)
def test_nonsense_is_an_annotation_error_or_read(
    tmp_path_factory: pytest.TempPathFactory, kind: str, coordinates: Any, properties: Any, classification: Any
) -> None:
    path = tmp_path_factory.getbasetemp() / "nonsense.geojson"
    if isinstance(properties, dict):
        properties["classification"] = classification
    geometry = {"type": kind, "coordinates": coordinates, "geometries": coordinates}
    path.write_text(json.dumps({"type": "Feature", "geometry": geometry, "properties": properties}))
    try:
        (annotation,) = read_annotations(path)
    except AnnotationError:
        return
    assert annotation.geometry.is_valid
    assert not annotation.geometry.is_empty


EXPORTED = {
    "large_image_sample.geojson": (10, None, True),
    "qupath-brush.json": (1, None, True),
    "qupath-ellipse.json": (1, None, True),
    "qupath-line.json": (1, None, False),
    "qupath-multipoint.json": (1, None, False),
    "qupath-point.json": (1, None, False),
    "qupath-polygon-cell-classified.json": (4, "Cell", True),
    "qupath-polygon.json": (1, None, True),
    "qupath-polyline.json": (1, None, False),
    "qupath-rectangle.json": (1, None, True),
    "qupath-wand.json": (1, None, True),
    "qupath05.geojson": (3, None, True),
}


@pytest.mark.parametrize("name", EXPORTED)
def test_what_users_exported(shared_data: Path, name: str) -> None:
    count, class_name, has_area = EXPORTED[name]
    annotations = read_annotations(shared_data / "geojson" / name)
    assert len(annotations) == count
    assert annotations[0].class_name == class_name
    assert all(a.has_area == has_area and a.geometry.is_valid for a in annotations)
    assert all(shapely.get_coordinates(a.geometry).min() > 1000 for a in annotations)
    if name == "qupath05.geojson":
        assert [a.name for a in annotations] == ["UT", "I", "I"]
        assert annotations[0].colour == (255, 0, 0)
    if class_name:
        assert annotations[0].colour == (127, 220, 58)


def test_no_exported_file_was_forgotten(shared_data: Path) -> None:
    assert {p.name for p in (shared_data / "geojson").iterdir()} == set(EXPORTED)
