"""Objects written for QuPath: rounding, encoding, the file."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import MultiPolygon, Polygon

from sampath_wsi.classes import TissueClass
from sampath_wsi.errors import ConfigError
from sampath_wsi.qupath import ObjectWriter, encode_object, rounded_for_qupath
from tests.geojson_validator import validate

TUMOR = TissueClass(name="Tumor", color=(200, 0, 0))


def rounded(geometry: Polygon | MultiPolygon) -> Polygon | MultiPolygon | None:
    return rounded_for_qupath(np.array([geometry], dtype=object))[0]


def feature(number: int = 1, geometry: Polygon | None = None) -> bytes:
    return encode_object(
        geometry or shapely.box(0, 0, 10, 10.25),
        uuid=UUID(int=number),
        tissue_class=TUMOR,
        object_type="annotation",
        name=f"Tumor {number}",
        measurements={"Area µm^2": 12.5},
    )


def test_good_polygons_are_only_rounded() -> None:
    result = rounded(Polygon([(-0.001, 0), (10.126, 0), (10, 9.99999), (0, 10)]))
    assert result is not None
    assert result.wkt == "POLYGON ((0 0, 10.13 0, 10 10, 0 10, 0 0))"


def test_one_part_is_a_polygon_and_two_are_not() -> None:
    one = rounded(MultiPolygon([shapely.box(0, 0, 1, 1)]))
    two = rounded(MultiPolygon([shapely.box(0, 0, 1, 1), shapely.box(1, 1, 2, 2)]))
    assert one is not None
    assert two is not None
    assert (one.geom_type, two.geom_type) == ("Polygon", "MultiPolygon")


def test_what_vanishes_is_dropped() -> None:
    speck = shapely.box(5, 5, 5.004, 5.004)
    assert rounded(speck) is None
    kept = rounded(MultiPolygon([shapely.box(0, 0, 1, 1), speck]))
    assert kept is not None
    assert kept.equals(shapely.box(0, 0, 1, 1))
    hole = rounded(shapely.box(0, 0, 10, 10).difference(speck))
    assert hole is not None
    assert hole.equals(shapely.box(0, 0, 10, 10))


def test_what_rounding_breaks_is_repaired() -> None:
    # A vertex closer to a long edge than the rounding moves it.
    thin = Polygon([(0, 0), (1000, 3.3333), (1000, 20), (520, 1.7343), (0, 20)])
    assert thin.is_valid
    assert not shapely.transform(thin, lambda xy: np.round(xy, 2)).is_valid
    result = rounded(thin)
    assert result is not None
    assert result.is_valid
    assert result.symmetric_difference(thin).area < 0.01 * thin.length
    assert shapely.hausdorff_distance(result, thin) <= 0.01


@settings(max_examples=200)
@given(points=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), min_size=4, max_size=12))
def test_any_valid_geometry_stays_valid_near_itself_or_vanishes(points: list[tuple[int, int]]) -> None:
    hulls = [shapely.make_valid(Polygon(np.array(points) / 1000))]
    parts = [p for g in hulls for p in shapely.get_parts(shapely.get_parts(g)).tolist() if p.geom_type == "Polygon"]
    for part in parts:
        result = rounded(part)
        if result is None:
            assert part.area < 0.01 * part.length + 0.001
            continue
        assert result.is_valid
        assert result.area > 0
        xy = shapely.get_coordinates(result)
        assert np.array_equal(np.round(xy, 2), xy)
        assert result.difference(part.buffer(0.0151)).area < 1e-9


def test_no_polygons_give_no_polygons() -> None:
    assert rounded_for_qupath(np.empty(0, dtype=object)) == []


def test_a_feature_says_what_qupath_needs(tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"
    with ObjectWriter(path) as writer:
        writer.write(feature())
    document = json.loads(path.read_bytes())
    assert document == {
        "type": "FeatureCollection",
        "features": [
            {
                "type": "Feature",
                "id": "00000000-0000-0000-0000-000000000001",
                "geometry": {
                    "type": "Polygon",
                    "coordinates": [[[10, 0], [10, 10.25], [0, 10.25], [0, 0], [10, 0]]],
                },
                "properties": {
                    "objectType": "annotation",
                    "classification": {"name": "Tumor", "color": [200, 0, 0]},
                    "isLocked": True,
                    "name": "Tumor 1",
                    "measurements": {"Area µm^2": 12.5},
                },
            }
        ],
    }
    assert path.read_bytes().isascii()
    assert writer.json_bytes == path.stat().st_size


@pytest.mark.parametrize("name", ["a.geojson", "a.json", "a.geojson.gz"])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_files_of_all_names_and_sizes(tmp_path: Path, name: str, count: int) -> None:
    with ObjectWriter(tmp_path / "new" / name) as writer:
        for number in range(count):
            writer.write(feature(number))
    assert writer.count == count
    assert validate(tmp_path / "new" / name) == []


def test_numbers_that_json_has_not_are_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode_object(
            shapely.box(0, 0, 1, 1),
            uuid=UUID(int=1),
            tissue_class=TUMOR,
            object_type="detection",
            name="",
            measurements={"a": float("nan")},
        )


def test_the_header_holds_neither_time_nor_name(tmp_path: Path) -> None:
    for name in ("a.geojson.gz", "b.geojson.gz"):
        with ObjectWriter(tmp_path / name) as writer:
            writer.write(feature())
    data = (tmp_path / "a.geojson.gz").read_bytes()
    assert data == (tmp_path / "b.geojson.gz").read_bytes()
    assert data[3:8] == bytes(5)
    assert gzip.decompress(data).endswith(b"]}\n")


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with ObjectWriter(tmp_path / "a.geojson.gz") as writer:
            writer.write(feature())
            raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        fail()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.gz", "a.txt", "a.zip", "geojson"])
def test_names_that_qupath_does_not_know(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="does not recognise this name"):
        ObjectWriter(tmp_path / name)
