"""Large polygons cut into pieces: nothing lost, nothing twice, none too large."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import MultiPolygon, Polygon

from sampath_wsi.stages.vectorize.objects import Cell, cut
from sampath_wsi.stages.vectorize.source import MapFrame

from .maps import draw, natural_map


def comb(teeth: int, x: int = 0, y: int = 0) -> Polygon:
    """A polygon of pixel corners with many vertices."""
    top = [(x + 2 * k + dx, y + dy) for k in range(teeth) for dx, dy in ((0, 3), (0, 0), (1, 0), (1, 3))]
    return Polygon([*top, (x + 2 * teeth, y + 3), (x + 2 * teeth, y + 5), (x, y + 5)])


@settings(max_examples=80)
@given(
    seed=st.integers(0, 10_000),
    limit=st.sampled_from([100, 150, 400]),
    scale=st.sampled_from([(1.0, 1.0), (8.0, 8.0), (8.602150537634408, 8.0), (0.75, 0.3)]),
    offset=st.sampled_from([(0.0, 0.0), (37.25, -963.0)]),
    slanted=st.booleans(),
)
def test_pieces_make_the_polygon_again(
    seed: int, limit: int, scale: tuple[float, float], offset: tuple[float, float], slanted: bool
) -> None:
    labels = natural_map(70, 90, seed=seed, classes=2, sigma=1.5)
    drawn = draw(labels, tolerance=0.75 if slanted else 0.0, scale=scale, offset=offset)
    whole = max(drawn.polygons.tolist(), key=lambda polygon: len(shapely.get_coordinates(polygon)))
    pieces = cut(whole, MapFrame(scale, offset), limit)
    shapes = [piece.geometry for piece in pieces]
    assert all(len(shapely.get_coordinates(shape)) <= limit for shape in shapes)
    assert all(shapely.is_valid(shapes))
    assert len({piece.place for piece in pieces}) == len(pieces)
    # Coordinates are hundredths: a border moves by half of that where a cut crosses it.
    moved = 0.0072 * sum(shape.length for shape in shapes)
    union = shapely.union_all(shapes)
    assert union.symmetric_difference(whole).area <= moved
    assert abs(sum(shape.area for shape in shapes) - union.area) <= moved
    assert sum(piece.area_px2 for piece in pieces) == pytest.approx(whole.area, rel=1e-9)
    if scale == (1.0, 1.0) and not slanted and offset == (0.0, 0.0):
        assert union.equals(whole)
        assert sum(shape.area for shape in shapes) == whole.area


def test_only_too_large_polygons_are_cut() -> None:
    labels = natural_map(120, 120, seed=3, classes=3, sigma=3)
    whole, pieces = draw(labels), draw(labels, max_vertices=150)
    counts = {f["id"]: len(shapely.get_coordinates(p)) for f, p in zip(whole.features, whole.polygons, strict=True)}
    kept = {f["id"]: f for f in pieces.features if ", piece " not in f["properties"]["name"]}
    assert kept == {f["id"]: f for f in whole.features if counts[f["id"]] <= 150}
    large = [f for f in whole.features if counts[f["id"]] > 150]
    assert pieces.spool.cut_objects == len(large) > 0
    assert pieces.spool.pieces == len(pieces.features) - len(kept)
    assert sum(pieces.spool.objects.values()) == len(pieces.features)
    assert np.array_equal(pieces.rasterized(labels.shape), labels)


@pytest.mark.parametrize("objects", ["regions", "classes"])
def test_pieces_say_what_they_belong_to(objects: str) -> None:
    labels = natural_map(120, 120, seed=3, classes=2, sigma=3)
    probability = np.full((5, 120, 120), 0.2, np.float32)
    options: dict[str, Any] = {"objects": objects, "probability": probability}
    whole, cut_up = draw(labels, **options), draw(labels, **options, max_vertices=150)
    pieces = [f["properties"] for f in cut_up.features if ", piece " in f["properties"]["name"]]
    for name in {p["name"].rpartition(", piece ")[0] for p in pieces}:
        own = [p for p in pieces if p["name"].startswith(f"{name}, piece ")]
        (before,) = [f["properties"] for f in whole.features if f["properties"]["name"] == name]
        assert [p["name"] for p in own] == [f"{name}, piece {k} of {len(own)}" for k in range(1, len(own) + 1)]
        area = before["measurements"]["Area µm^2"]
        assert sum(p["measurements"]["Area µm^2"] for p in own) == pytest.approx(area, abs=0.001 * len(own))
        for piece in own:
            assert piece["measurements"]["Area of all pieces µm^2"] == area
            assert piece["classification"] == before["classification"]
            assert {k: v for k, v in piece["measurements"].items() if "Area" not in k} == {
                k: v for k, v in before["measurements"].items() if "Area" not in k
            }


def test_areas_of_pieces_are_those_of_their_pixels() -> None:
    labels = natural_map(100, 100, seed=5, classes=2, sigma=2)
    drawn = draw(labels, max_vertices=150, mpp_map=2.0)
    for feature, polygon in zip(drawn.features, drawn.polygons, strict=True):
        assert feature["properties"]["measurements"]["Area µm^2"] == pytest.approx(polygon.area * 4.0, abs=0.001)


def test_the_same_pieces_whatever_the_chunks() -> None:
    labels = natural_map(150, 150, seed=8, classes=2, sigma=2)
    first = draw(labels, max_vertices=200)
    assert first.spool.pieces
    assert draw(labels, max_vertices=200, chunk=40).data == first.data
    assert len({json.loads(each)["id"] for each in first.data}) == len(first.data)


def test_cells_are_halved_along_their_longer_side() -> None:
    assert Cell(8, 4, 4, 4).divided(1) == [Cell(8, 4, 2, 4), Cell(10, 4, 2, 4)]
    assert Cell(8, 4, 2, 4).divided(1) == [Cell(8, 4, 2, 2), Cell(8, 6, 2, 2)]
    assert len(Cell(0, 0, 2, 2).divided(9)) == 4


@pytest.mark.parametrize("offset", [0.1, 37.25, -963.0])
@pytest.mark.parametrize("scale", [0.3, 4.3, 2 / 0.31])
def test_rounding_noise_makes_no_larger_cell(scale: float, offset: float) -> None:
    """The cell is in the identifier of a piece."""
    for side in (1, 2, 4, 8, 16, 64, 128):
        corners = np.array([side, 2 * side]) * scale + offset
        (piece,) = cut(shapely.box(*corners[[0, 0, 1, 1]]), MapFrame((scale, scale), (offset, offset)), 100)
        assert piece.place == f"{side},{side},{side},{side}"


def test_what_fits_a_cell_is_one_piece_and_parts_stay_together() -> None:
    frame = MapFrame((1.0, 1.0), (0.0, 0.0))
    (piece,) = cut(comb(20), frame, 1000)
    assert piece.geometry.equals(comb(20))
    two = MultiPolygon([comb(30), comb(30, y=10)])
    pieces = cut(two, frame, 150)
    assert shapely.union_all([p.geometry for p in pieces]).equals(two)
    assert max(len(shapely.get_coordinates(p.geometry)) for p in pieces) <= 150
