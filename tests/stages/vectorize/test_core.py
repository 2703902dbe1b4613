"""Vectorizing as a whole, from label maps in memory to features."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import ndimage

from sampath_wsi.classes import TissueClass
from sampath_wsi.errors import StoreError

from .maps import CLASSES, Drawn, ascii_map, draw, natural_map

LABELS = NDArray[np.uint8]
label_maps = st.tuples(st.integers(1, 14), st.integers(1, 14), st.integers(1, 4)).flatmap(
    lambda size: arrays(np.uint8, size[:2], elements=st.integers(0, size[2]))
)
CROSS = """
    .........
    .11.111..
    .1.1.11..
    .11.1.1..
    .222.11..
    .2.2111..
    .222.....
"""


def regions_of(labels: LABELS, label: int) -> int:
    return int(ndimage.label(labels == label)[1])


@settings(max_examples=60)
@given(labels=label_maps, chunks=st.lists(st.integers(2, 9), min_size=2, max_size=2), classwise=st.booleans())
def test_exact_and_independent_of_chunks_at_tolerance_zero(labels: LABELS, chunks: list[int], classwise: bool) -> None:
    objects = "classes" if classwise else "regions"
    whole = draw(labels, objects=objects)
    assert np.array_equal(whole.rasterized(labels.shape), labels)
    for chunk in chunks:
        assert draw(labels, chunk=chunk, objects=objects).data == whole.data
    for label in range(1, 5):
        count = regions_of(labels, label)
        assert np.count_nonzero(whole.labels == label) == (min(count, 1) if classwise else count)


@settings(max_examples=60)
@given(labels=label_maps, chunk=st.integers(2, 9), tolerance=st.sampled_from([0.75, 1.0, 1.5, 4.0]))
def test_simplified_coverage_is_valid_over_chunk_borders(labels: LABELS, chunk: int, tolerance: float) -> None:
    labels = labels + 1  # no glass: then a gap would show in the union
    drawn = draw(labels, chunk=chunk, tolerance=tolerance)
    assert shapely.is_valid(drawn.polygons).all()
    assert shapely.coverage_is_valid(drawn.polygons)
    assert shapely.area(drawn.polygons).sum() == pytest.approx(labels.size, abs=1e-9)
    union = shapely.union_all(drawn.polygons)
    assert union.equals(shapely.box(0, 0, labels.shape[1], labels.shape[0]))


@settings(max_examples=40)
@given(labels=label_maps, chunk=st.integers(2, 9), smallest=st.integers(1, 9), hole=st.integers(1, 9))
def test_cleaning_does_not_depend_on_chunks(labels: LABELS, chunk: int, smallest: int, hole: int) -> None:
    whole = draw(labels, min_area=smallest, min_hole=hole)
    parts = draw(labels, min_area=smallest, min_hole=hole, chunk=chunk)
    assert parts.data == whole.data
    back = whole.rasterized(labels.shape)
    assert whole.regions.changed_map_px == parts.regions.changed_map_px == np.count_nonzero(back != labels)
    if len(whole.data) > 1:
        assert all(
            np.bincount(ndimage.label(back == k)[0].ravel())[1:].min(initial=99) >= smallest for k in range(1, 5)
        )


@settings(max_examples=30)
@given(
    labels=label_maps,
    scale=st.tuples(st.floats(0.02, 40), st.floats(0.02, 40)),
    offset=st.tuples(st.floats(-1e5, 1e5), st.floats(-1e5, 1e5)),
    tolerance=st.sampled_from([0.0, 1.0]),
)
def test_any_frame_gives_valid_polygons_at_two_decimals(
    labels: LABELS, scale: tuple[float, float], offset: tuple[float, float], tolerance: float
) -> None:
    drawn = draw(labels, scale=scale, offset=offset, tolerance=tolerance, chunk=5)
    assert shapely.is_valid(drawn.polygons).all()
    xy = shapely.get_coordinates(drawn.polygons)
    assert np.array_equal(np.round(xy, 2), xy)
    # The rounding moves a corner by at most 0.005 px, here on a grid of corners ``scale`` apart.
    grid = np.round((xy - offset) / scale) * scale + offset
    assert np.abs(grid - xy).max(initial=0) <= 0.0051
    if tolerance == 0 and min(scale) > 0.1:
        assert np.array_equal(drawn.rasterized(labels.shape), labels)


@pytest.mark.parametrize("seed", range(2))
def test_natural_shapes_at_the_default_tolerance(seed: int) -> None:
    labels = natural_map(700, 900, seed=seed)
    drawn = draw(
        labels, chunk=256, tolerance=0.75, min_area=6.25, min_hole=6.25, scale=(8.6, 8.1), offset=(-310.4, 77.7)
    )
    assert np.mean(drawn.rasterized(labels.shape) == labels) >= 0.995
    area = shapely.area(drawn.polygons) / (8.6 * 8.1)
    for label in range(1, 6):
        assert area[drawn.labels == label].sum() == pytest.approx(np.count_nonzero(labels == label), rel=1e-3)
    assert len(drawn.polygons) > 20
    exact = draw(labels, chunk=256, min_area=6.25, min_hole=6.25)
    assert drawn.spool.n_vertices < 0.7 * exact.spool.n_vertices


@pytest.mark.parametrize("tolerance", [0.75, 3.0])
def test_natural_shapes_without_gaps_and_overlaps(tolerance: float) -> None:
    labels = natural_map(500, 640, seed=7, glass=False)
    drawn = draw(labels, chunk=200, tolerance=tolerance, min_area=10)
    assert shapely.coverage_is_valid(drawn.polygons)
    assert shapely.area(drawn.polygons).sum() == labels.size
    assert shapely.union_all(drawn.polygons).equals(shapely.box(0, 0, 640, 500))


def test_outer_borders_of_the_tissue_are_simplified_too() -> None:
    y, x = np.mgrid[:200, :200]
    disc = ((x - 100) ** 2 + (y - 100) ** 2 < 80**2).astype(np.uint8)
    for chunk in (1024, 64):
        exact, simple = draw(disc, chunk=chunk), draw(disc, chunk=chunk, tolerance=1.0)
        assert simple.spool.n_vertices < 0.5 * exact.spool.n_vertices


def test_chunk_borders_leave_no_points_behind() -> None:
    labels = np.ones((40, 60), np.uint8)
    labels[:, 30:] = 2
    labels[10:20, 10:20] = 3
    drawn = draw(labels, chunk=10, tolerance=1.0)
    assert [len(shapely.get_coordinates(p)) for p in drawn.polygons] == [10, 5, 5]


def test_a_square_hole_and_an_island_in_it() -> None:
    labels = np.zeros((9, 9), np.uint8)
    labels[1:8, 1:8], labels[2:7, 2:7], labels[3:6, 3:6], labels[4, 4] = 1, 0, 1, 2
    for chunk in (9, 4):
        drawn = draw(labels, chunk=chunk)
        assert [len(p.interiors) for p in drawn.polygons] == [1, 1, 0]
        assert shapely.area(drawn.polygons).tolist() == [24, 8, 1]


def test_an_island_goes_below_the_least_area_and_stays_at_it() -> None:
    labels = np.ones((8, 12), np.uint8)
    labels[2, 2:4], labels[5, 5:8] = 2, 2
    for chunk in (12, 4):
        assert sorted(shapely.area(draw(labels, chunk=chunk, min_area=3).polygons)) == [3, 93]


def test_regions_that_touch_at_corners_only_stay_apart() -> None:
    labels = (np.indices((6, 6)).sum(0) % 2 + 1).astype(np.uint8)
    for chunk in (6, 4, 2):
        drawn = draw(labels, chunk=chunk)
        assert len(drawn.data) == 36
        assert {f["geometry"]["type"] for f in drawn.features} == {"Polygon"}


def test_a_region_touching_itself_at_a_corner_is_valid() -> None:
    labels = ascii_map(CROSS)
    for chunk in (16, 3, 2):
        drawn = draw(labels, chunk=chunk)
        assert shapely.is_valid(drawn.polygons).all()
        assert np.array_equal(drawn.rasterized(labels.shape), labels)


def test_one_region_over_many_chunks_keeps_all_holes() -> None:
    labels = np.ones((50, 50), np.uint8)
    labels[2::4, 2::4] = 2
    drawn = draw(labels, chunk=7)
    assert len(drawn.polygons[0].interiors) == 12 * 12 + (50 % 4 > 2) * 25
    assert drawn.polygons[0].area == 50 * 50 - np.count_nonzero(labels == 2)


def test_nothing_gives_nothing() -> None:
    drawn = draw(np.zeros((20, 30), np.uint8), chunk=8, min_area=5, min_hole=1000)
    assert drawn.data == []
    assert drawn.spool.n_vertices == 0
    assert drawn.regions.changed_map_px == 0


def test_ignored_classes_make_no_objects_but_take_part() -> None:
    classes = (TissueClass(name="Region*", color=(0, 0, 180)), *CLASSES[1:])
    labels = natural_map(200, 200, seed=5)
    drawn, full = (draw(labels, classes=c, tolerance=1.0, chunk=64) for c in (classes, CLASSES))
    assert 1 not in drawn.labels
    kept = full.labels != 1
    assert [p.wkb for p in drawn.polygons] == [p.wkb for p in full.polygons[kept]]
    graph = drawn.regions.graph
    assert graph.area_map_px[graph.label == 1].sum() == np.count_nonzero(labels == 1)


def brute_means(drawn: Drawn, labels: LABELS, probability: NDArray[np.float64]) -> None:
    """Compare every measurement with sums over the pixels themselves."""
    for feature, label in zip(drawn.features, drawn.labels.tolist(), strict=True):
        ring = feature["geometry"]["coordinates"][0]
        regions, _ = ndimage.label(labels == label)
        column, row = map(int, min(ring, key=lambda p: (p[1], p[0])))
        inside = regions == regions[row, column]
        found = feature["properties"]["measurements"]
        means = probability[:, inside].mean(1)
        assert found["Area µm^2"] == pytest.approx(np.count_nonzero(inside) * 4.0)
        assert found["Mean probability"] == pytest.approx(means[label - 1], abs=5.1e-5)
        for tissue_class, mean in zip(CLASSES, means, strict=True):
            assert found[f"Prob: {tissue_class.name}"] == pytest.approx(mean, abs=5.1e-5)
        assert len(found) == len(CLASSES) + 2


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_measurements_are_sums_over_the_pixels(dtype: type) -> None:
    labels = natural_map(120, 150, seed=11, sigma=6)
    raw = np.random.default_rng(0).dirichlet(np.ones(5), labels.shape).transpose(2, 0, 1)
    stored = (raw * 255).round().astype(np.uint8) if dtype is np.uint8 else raw.astype(np.float32)
    unit = 255.0 if dtype is np.uint8 else 1.0
    for chunk in (1024, 40):
        brute_means(draw(labels, probability=stored, chunk=chunk), labels, stored / unit)


def test_filled_holes_count_for_area_but_not_probability() -> None:
    labels = np.ones((10, 10), np.uint8)
    labels[4:6, 4:6] = 0
    probability = np.zeros((5, 10, 10), np.float32)
    probability[0] = np.where(labels == 1, 0.75, 0.0)
    probability[1] = np.where(labels == 1, 0.25, 1.0)
    (feature,) = draw(labels, probability=probability, min_hole=5, chunk=5).features
    assert feature["properties"]["measurements"]["Prob: Tumor"] == 0.75
    assert feature["properties"]["measurements"]["Prob: Stroma"] == 0.25
    assert feature["properties"]["measurements"]["Area µm^2"] == 400


def test_one_annotation_a_class() -> None:
    labels = np.zeros((8, 20), np.uint8)
    labels[1:3, 1:3], labels[5:7, 1:3], labels[3:6, 10:15] = 1, 1, 2
    features = draw(labels, objects="classes", object_type="annotation", chunk=4).features
    assert [f["geometry"]["type"] for f in features] == ["MultiPolygon", "Polygon"]
    assert [f["properties"]["name"] for f in features] == ["Tumor", "Stroma"]
    found = features[0]["properties"]["measurements"]
    assert (found["Area µm^2"], found["Mean probability"], found["Prob: Stroma"]) == (8 * 4.0, 1.0, 0.0)


def test_identifiers_are_stable_and_differ() -> None:
    labels = natural_map(150, 150, seed=3)
    exact, simple = draw(labels, chunk=50), draw(labels, tolerance=1.5)
    ids = [f["id"] for f in exact.features]
    assert len(set(ids)) == len(ids) > 10
    assert ids == [f["id"] for f in simple.features]
    assert [f["properties"]["name"] for f in exact.features] == [f["properties"]["name"] for f in simple.features]


def test_a_label_without_class_is_an_error() -> None:
    with pytest.raises(StoreError, match="label 9, but there are only 5 classes"):
        draw(np.full((4, 4), 9, np.uint8))
