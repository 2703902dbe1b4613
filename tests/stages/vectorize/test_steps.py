"""The steps of vectorizing one by one, each against a plain reference."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from rasterio.features import shapes
from scipy import ndimage

from sampath_wsi.stages.vectorize.outline import finish, simplify, trace
from sampath_wsi.stages.vectorize.regions import (
    RegionGraph,
    borders,
    connected_regions,
    crack_count,
    merge_small,
    region_sums,
    without_small_regions,
)
from sampath_wsi.stages.vectorize.source import Window, windows
from sampath_wsi.stages.vectorize.survey import ChunkBorders, find_regions

from .maps import ascii_map, in_memory, natural_map

small_maps = arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 3))
Labels = NDArray[np.uint8]


@given(labels=small_maps)
def test_regions_are_those_of_ndimage(labels: Labels) -> None:
    found = connected_regions(labels)
    expected = 0
    for label in range(4):
        image, count = ndimage.label(labels == label)
        expected += count
        for k in range(1, count + 1):
            inside = image == k
            (region,) = np.unique(found.image[inside])
            assert found.area[region] == np.count_nonzero(inside)
            assert found.first[region] == np.flatnonzero(inside)[0]
            assert found.label[region] == label
    assert len(found) == expected
    assert (np.diff(found.first) > 0).all()


@given(labels=small_maps, seed=st.integers(0, 9))
def test_sums_over_regions(labels: Labels, seed: int) -> None:
    channels = np.random.default_rng(seed).integers(0, 256, (3, *labels.shape), dtype=np.uint8)
    regions = connected_regions(labels)
    expected = [ndimage.sum_labels(channel, regions.image, np.arange(len(regions))) for channel in channels]
    assert np.array_equal(region_sums(regions, channels), np.transpose(expected))


@given(labels=small_maps)
def test_outlines_are_those_of_gdal(labels: Labels) -> None:
    regions = connected_regions(labels)
    polygons = trace(regions.image)
    assert shapely.is_valid(polygons).all()
    assert shapely.coverage_is_valid(polygons)
    expected = {int(value): shapely.geometry.shape(shape) for shape, value in shapes(regions.image, connectivity=4)}
    assert len(polygons) == len(expected) == len(regions)
    for region, polygon in enumerate(polygons):
        assert polygon.equals(expected[region])


def signed_areas(polygon: shapely.Polygon) -> list[float]:
    """Of the outer ring and of the holes; positive for what has its inside on the right, with y down."""
    rings = [np.array(ring.coords) for ring in (polygon.exterior, *polygon.interiors)]
    return [float(np.sum(r[:-1, 0] * r[1:, 1] - r[:-1, 1] * r[1:, 0])) / 2 for r in rings]


def test_outlines_begin_at_their_top_and_turn_the_right_way() -> None:
    image = connected_regions(natural_map(90, 80, seed=1)).image
    polygons = trace(image)
    areas = [signed_areas(polygon) for polygon in polygons]
    assert all(outer > 0 and max(holes, default=-1) < 0 for outer, *holes in areas)
    assert sum(map(sum, areas)) == 90 * 80
    for ring in (ring for polygon in polygons for ring in (polygon.exterior, *polygon.interiors)):
        assert ring.coords[0] == min(ring.coords, key=lambda point: (point[1], point[0]))
    window = ChunkBorders(image.shape, 200)
    window.put(Window(0, 0, 90, 80), image)
    expected = [polygon.wkb for polygon in finish(polygons, window)]
    # Whatever way GEOS turns them and wherever it begins.
    assert [polygon.wkb for polygon in finish(shapely.normalize(polygons), window)] == expected


def test_simplifying_keeps_the_window_border_and_the_lattice() -> None:
    polygons = trace(connected_regions(natural_map(90, 80, seed=2)).image)
    simple = simplify(polygons, 2.0)
    assert shapely.coverage_is_valid(simple)
    points, kept = ({tuple(p) for p in shapely.get_coordinates(each).tolist()} for each in (polygons, simple))
    assert kept < points

    def on_border(points: set[tuple[float, ...]]) -> set[tuple[float, ...]]:
        return {(x, y) for x, y in points if x in (0, 80) or y in (0, 90)}

    assert on_border(kept) == on_border(points)


def test_cracks_at_a_corner() -> None:
    padded = np.array([[0, 0, 1], [0, 0, 2], [3, 0, 0]], dtype=np.int32)
    x, y = np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])
    assert crack_count(padded, x, y).tolist() == [0, 3, 2, 2]


@given(labels=small_maps, side=st.integers(2, 9))
def test_cracks_on_chunk_borders_are_those_of_the_map(labels: Labels, side: int) -> None:
    image = connected_regions(labels).image
    found = ChunkBorders(labels.shape, side)
    for window in windows(labels.shape, side):
        found.put(window, image[window.slices])
    height, width = labels.shape
    y, x = np.indices((height + 1, width + 1)).reshape(2, -1)
    on_border = (x % side == 0) | (x == width) | (y % side == 0) | (y == height)
    expected = crack_count(np.pad(image, 1, constant_values=-1), x, y)
    assert np.array_equal(found.crack_count(x[on_border], y[on_border]), expected[on_border])


def graph_of(labels: Labels, chunk: int = 64) -> tuple[RegionGraph, NDArray[np.int64]]:
    """Regions and the region of every pixel."""
    chunks, lines = windows(labels.shape, chunk), ChunkBorders(labels.shape, chunk)
    graph, region, begin = find_regions(in_memory(labels), chunks, lines, 10**6)
    image = np.empty(labels.shape, np.int64)
    for window, first in zip(chunks, begin, strict=False):
        image[window.slices] = region[first + connected_regions(labels[window.slices]).image]
    return graph, image


@given(labels=small_maps, chunk=st.integers(1, 5))
def test_joined_regions_and_borders_are_those_of_the_whole_map(labels: Labels, chunk: int) -> None:
    graph, image = graph_of(labels, chunk)
    whole = connected_regions(labels)
    assert np.array_equal(image, whole.image)
    assert np.array_equal(graph.area_map_px, whole.area)
    assert np.array_equal(graph.first_map_px, whole.first)
    assert np.array_equal(graph.label, whole.label)
    assert np.array_equal(graph.touching, borders(whole))


def cleaned(labels: Labels, min_area: float, min_hole: float) -> Labels:
    graph, image = graph_of(labels, 4)
    result, became = merge_small(graph, min_area, min_hole)
    regions = connected_regions(result.label[became][image])
    # The new graph says the same of the new map as looking at the map does.
    assert np.array_equal(regions.image, became[image])
    assert np.array_equal(regions.area, result.area_map_px)
    assert np.array_equal(regions.first, result.first_map_px)
    assert np.array_equal(borders(regions), result.touching)
    return result.label[became][image]


@settings(max_examples=100)
@given(labels=small_maps, min_area=st.integers(0, 12), min_hole=st.integers(0, 12))
def test_nothing_small_is_left(labels: Labels, min_area: int, min_hole: int) -> None:
    back = connected_regions(cleaned(labels, min_area, min_hole))
    if len(back) > 1:
        assert (back.area >= np.where(back.label == 0, min_hole, min_area)).all()
    before = connected_regions(labels)
    keep = before.area >= np.where(before.label == 0, min_hole, min_area)
    unchanged = keep[before.image]
    assert np.array_equal(back.label[back.image][unchanged], labels[unchanged]) or not keep.any()


@pytest.mark.parametrize(
    ("before", "after", "min_area", "min_hole"),
    [
        ("1111 1211 1111", "1111 1111 1111", 2, 0),  # island
        ("1111 1.11 1111", "1111 1111 1111", 0, 2),  # hole
        ("1111 1.11 1111", "1111 1.11 1111", 2, 0),  # a hole is not an island
        ("1111 1211 1111", "1111 1211 1111", 0, 2),  # nor an island a hole
        ("..... .11.. .....", "..... ..... .....", 3, 0),  # speck on glass
        ("11222 11322 11222", "11222 11222 11222", 2, 0),  # longest border
        ("11122222 11322222", "11122222 11122222", 2, 0),  # longest border, though the other is greater
        ("113222", "112222", 2, 0),  # of equal borders the greater neighbour
        ("11322", "11122", 2, 0),  # of equal neighbours the earlier
        ("1111 1231 1111", "1111 1111 1111", 2, 0),  # small beside small
        ("12 34", "11 11", 9, 0),  # all small: no swapping for ever
        ("121 121 121", "121 121 121", 3, 0),  # just large enough
        (".1", "11", 0, 2),  # a neighbour of the same size that is not small
    ],
)
def test_what_small_parts_become(before: str, after: str, min_area: int, min_hole: int) -> None:
    result = cleaned(ascii_map(before.replace(" ", "\n")), min_area, min_hole)
    assert np.array_equal(result, ascii_map(after.replace(" ", "\n")))


def test_merging_bridges_what_it_touches() -> None:
    labels = ascii_map("11211\n11211\n11211")
    graph, _ = graph_of(labels)
    result, became = merge_small(graph, 4, 0)
    assert len(result) == 1
    assert became.tolist() == [0, 0, 0]
    assert result.area_map_px.tolist() == [15]


def test_windows_cover_the_map_once() -> None:
    count = np.zeros((23, 10), int)
    for window in windows((23, 10), 8):
        count[window.slices] += 1
    assert (count == 1).all()
    assert windows((23, 10), 8)[-1] == Window(16, 8, 7, 2)


def test_small_regions_of_a_label_map_join_their_surroundings() -> None:
    labels = np.ones((20, 30), np.uint8)
    labels[2:5, 2:5] = 2
    labels[8:18, 8:20] = 2
    labels[10:12, 10:12] = 1
    cleaned = without_small_regions(labels, 10)
    expected = np.ones_like(labels)
    expected[8:18, 8:20] = 2
    np.testing.assert_array_equal(cleaned, expected)
    np.testing.assert_array_equal(without_small_regions(labels, 4), labels)
    np.testing.assert_array_equal(without_small_regions(np.full((3, 3), 2, np.uint8), 100), 2)
