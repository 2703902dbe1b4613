"""The steps of vectorizing one by one, each against a plain reference."""

from __future__ import annotations

import math
import os

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from rasterio.features import shapes
from scipy import ndimage

from sampath_wsi.errors import SampathError
from sampath_wsi.stages.vectorize.chunks import ArrayMap, Chunking, Window
from sampath_wsi.stages.vectorize.clean import merge_small
from sampath_wsi.stages.vectorize.label_maps import without_small_regions
from sampath_wsi.stages.vectorize.parallel import Workers
from sampath_wsi.stages.vectorize.polygons import (
    canonical,
    crack_count,
    gather,
    simplify,
    single_rings,
    to_polygons,
    trace,
)
from sampath_wsi.stages.vectorize.regions import borders, connected_regions, region_sums
from sampath_wsi.stages.vectorize.seams import Chain, link
from sampath_wsi.stages.vectorize.survey import RegionGraph, join, survey_chunk

from .maps import ascii_map, natural_map

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
    rings = trace(regions.image)
    polygons = to_polygons(rings, rings.xy.astype(np.float64))
    assert shapely.is_valid(polygons).all()
    assert shapely.coverage_is_valid(polygons)
    expected = {int(value): shapely.geometry.shape(shape) for shape, value in shapes(regions.image, connectivity=4)}
    assert len(polygons) == len(expected) == len(regions)
    for region, polygon in enumerate(polygons):
        assert polygon.equals(expected[region])


def test_rings_are_canonical_and_turn_the_right_way() -> None:
    rings = trace(connected_regions(natural_map(90, 80, seed=1)).image)
    area = rings.twice_signed_area
    first_of_region = np.diff(rings.region, prepend=-1) > 0
    assert (area[first_of_region] > 0).all()
    assert (area[~first_of_region] < 0).all()
    assert area.sum() == 2 * 90 * 80
    turned = [(region, np.roll(ring, 3, axis=0)) for region, ring in reversed(single_rings(rings))]
    again = gather(turned)
    assert np.array_equal(again.xy, rings.xy)
    assert np.array_equal(again.begin, rings.begin)
    assert np.array_equal(canonical(again).region, rings.region)


def test_simplifying_keeps_the_border_of_the_window_and_the_lattice() -> None:
    rings = trace(connected_regions(natural_map(90, 80, seed=2)).image)
    simple = simplify(rings, 2.0)
    polygons = to_polygons(simple, simple.xy.astype(np.float64))
    assert shapely.coverage_is_valid(polygons)
    assert len(simple.xy) < len(rings.xy)
    assert {tuple(p) for p in simple.xy.tolist()} <= {tuple(p) for p in rings.xy.tolist()}

    def on_border(xy: NDArray[np.int32]) -> set[tuple[int, ...]]:
        edge = (xy[:, 0] == 0) | (xy[:, 0] == 80) | (xy[:, 1] == 0) | (xy[:, 1] == 90)
        return {tuple(p) for p in xy[edge].tolist()}

    assert on_border(simple.xy) == on_border(rings.xy)
    assert (simple.twice_signed_area[np.diff(simple.region, prepend=-1) > 0] > 0).all()


def test_cracks_at_a_corner() -> None:
    padded = np.array([[0, 0, 1], [0, 0, 2], [3, 0, 0]], dtype=np.int32)
    x, y = np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])
    assert crack_count(padded, x, y).tolist() == [0, 3, 2, 2]


def test_links_part_where_a_region_touches_itself() -> None:
    # Two squares that share a corner, walked as one ring in the shape of an eight.
    left = Chain(4, np.array([(2, 2), (2, 4), (0, 4), (0, 2), (2, 2)][::-1], dtype=np.int32), True)
    right = Chain(4, np.array([(2, 2), (2, 0), (4, 0), (4, 2), (2, 2)], dtype=np.int32), True)
    rings = link([left, right])
    assert sorted(len(ring) for ring in rings) == [4, 4]
    assert all(len({tuple(p) for p in ring.tolist()}) == 4 for ring in rings)


def graph_of(labels: Labels, chunk: int = 64) -> tuple[RegionGraph, NDArray[np.int32]]:
    """Regions and the region of every pixel."""
    chunking = Chunking(labels.shape, chunk)
    surveys = [survey_chunk(ArrayMap(labels), window, small_map_px=10**6) for window in chunking.windows]
    graph, region, begin = join(surveys, chunking)
    image = np.empty(labels.shape, np.int32)
    for k, window in enumerate(chunking.windows):
        part = connected_regions(ArrayMap(labels).labels(window)).image
        rows, columns = slice(window.y, window.y + window.height), slice(window.x, window.x + window.width)
        image[rows, columns] = region[begin[k] : begin[k + 1]][part]
    return graph, image


@given(labels=small_maps, chunk=st.integers(1, 5))
def test_joined_regions_and_borders_are_those_of_the_whole_map(labels: Labels, chunk: int) -> None:
    graph, image = graph_of(labels, chunk)
    whole = connected_regions(labels)
    assert np.array_equal(image, whole.image)
    assert np.array_equal(graph.area_map_px, whole.area)
    assert np.array_equal(graph.first_map_px, whole.first)
    assert np.array_equal(graph.label, whole.label)
    assert all(np.array_equal(a, b) for a, b in zip(graph.touching, borders(whole), strict=True))


def cleaned(labels: Labels, min_area: float, min_hole: float) -> Labels:
    graph, image = graph_of(labels, 4)
    result, became = merge_small(graph, min_area, min_hole)
    regions = connected_regions(result.label[became][image])
    # The new graph says the same of the new map as looking at the map does.
    assert np.array_equal(regions.image, became[image])
    assert np.array_equal(regions.area, result.area_map_px)
    assert np.array_equal(regions.first, result.first_map_px)
    assert all(np.array_equal(a, b) for a, b in zip(borders(regions), result.touching, strict=True))
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
    for w in Chunking((23, 10), 8).windows:
        count[w.y : w.y + w.height, w.x : w.x + w.width] += 1
    assert (count == 1).all()
    assert Chunking((23, 10), 8).window(2, 1) == Window(16, 8, 7, 2)


def test_workers_keep_order_and_pass_errors_on() -> None:
    with Workers(2) as pool:
        assert list(pool.map(math.factorial, range(12))) == [math.factorial(k) for k in range(12)]
        with pytest.raises(ValueError, match="negative"):
            list(pool.map(math.factorial, range(3, -9, -1)))


def test_a_worker_that_is_killed_is_an_error_of_one_line() -> None:
    with Workers(2) as pool, pytest.raises(SampathError, match="memory ran out"):
        list(pool.map(os._exit, [3, 3, 3]))


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
