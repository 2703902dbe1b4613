from __future__ import annotations

import json
import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sampath_wsi.errors import ConfigError
from sampath_wsi.geometry import TileGrid

from .helpers import make_grid

mpps = st.floats(0.05, 4.0)


@st.composite
def grids(draw: st.DrawFn) -> TileGrid:
    stride = draw(st.sampled_from([1, 2, 4, 6]))
    tile = stride * draw(st.integers(4, 256))
    overlap = stride * draw(st.integers(0, tile // stride // 2))
    width, height = draw(st.integers(1, 50_000)), draw(st.integers(1, 50_000))
    x, y = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    region = (x, y, draw(st.integers(1, width - x)), draw(st.integers(1, height - y)))
    mpp, mpp_model = (draw(mpps), draw(mpps)), draw(st.floats(0.5, 4.0))
    rows_columns = (n * axis / mpp_model / (tile - overlap) + 1 for n, axis in zip(region[2:], mpp, strict=True))
    assume(math.prod(rows_columns) < 1 << 18)  # far more tiles are refused
    return make_grid((width, height), mpp, mpp_model, tile, overlap, stride, region)


def test_worked_example_of_the_module() -> None:
    grid = make_grid((100_000, 80_000), (0.25, 0.25), 0.5, 1024, 128, 4)
    box = grid.tile_box_level0_px(1)
    assert (box.x, box.width) == (1792, 2048)
    assert grid.tile_corner_map_px(1) == (224, 0)


@given(grids())
def test_tiles_cover_the_region_and_none_lies_outside(grid: TileGrid) -> None:
    last = grid.tile_box_level0_px(grid.rows * grid.columns - 1)
    right = grid.region_x_level0_px + grid.region_width_level0_px
    bottom = grid.region_y_level0_px + grid.region_height_level0_px
    assert last.right >= right - 1e-3
    assert last.bottom >= bottom - 1e-3
    assert grid.columns == 1 or last.x < right
    assert grid.rows == 1 or last.y < bottom


@given(grids())
def test_far_corner_of_the_last_tile_is_exact_to_a_pixel(grid: TileGrid) -> None:
    last = grid.tile_box_level0_px(grid.rows * grid.columns - 1)
    exact_um = ((grid.columns - 1) * grid.step_model_px + grid.tile_model_px) * grid.mpp_model
    assert last.right == pytest.approx(grid.region_x_level0_px + exact_um / grid.mpp_x, abs=1)


def test_fractional_scale_does_not_drift() -> None:
    grid = make_grid((100_000, 100_000), (0.2325, 0.2325), 0.5, 1024, 128, 4)
    last = grid.tile_box_level0_px(grid.columns - 1)
    exact = ((grid.columns - 1) * 896 + 1024) * 0.5 / 0.2325
    assert abs(last.right - exact) < 1e-6


def test_pixels_that_are_not_square() -> None:
    grid = make_grid((1000, 1000), (0.25, 0.5), 0.5, 64, 16, 4)
    box = grid.tile_box_level0_px(0)
    assert (box.width, box.height) == (128, 64)
    assert grid.map_size_map_px == (125, 250)


@given(grids())
def test_map_covers_the_region_within_one_map_pixel(grid: TileGrid) -> None:
    width, height = grid.map_size_map_px
    scale_x, scale_y, x, y = grid.map_to_level0_px()
    assert x + width * scale_x >= grid.region_x_level0_px + grid.region_width_level0_px - 1e-2
    assert (width - 1) * scale_x < max(grid.region_width_level0_px, scale_x)
    assert y + height * scale_y >= grid.region_y_level0_px + grid.region_height_level0_px - 1e-2


@given(grids())
def test_json_round_trip(grid: TileGrid) -> None:
    assert TileGrid.from_json(json.loads(json.dumps(grid.to_json()))) == grid


@given(st.data())
def test_tiles_touching_equals_a_plain_search(data: st.DataObject) -> None:
    grid = make_grid((3000, 2000), (0.3, 0.25), 0.5, 64, data.draw(st.sampled_from([0, 8, 16, 32])), 4)
    grid = grid.keep(set(grid.tiles) - data.draw(st.sets(st.sampled_from(grid.tiles), max_size=20)))
    # Corners on the tiles' lattice are where one more row or column would slip in.
    place = st.one_of(st.integers(0, 500), st.integers(0, 20).map(lambda k: k * grid.step_map_px))
    x0, y0 = data.draw(place), data.draw(place)
    x1, y1 = x0 + 1 + data.draw(place), y0 + 1 + data.draw(place)
    if data.draw(st.booleans()):
        x1, y1 = -(-x1 // grid.step_map_px) * grid.step_map_px, -(-y1 // grid.step_map_px) * grid.step_map_px

    def touches(tile: int) -> bool:
        x, y = grid.tile_corner_map_px(tile)
        return x < x1 and x + grid.tile_map_px > x0 and y < y1 and y + grid.tile_map_px > y0

    plain = [(position, tile) for position, tile in enumerate(grid.tiles) if touches(tile)]
    assert grid.tiles_touching_map_px(x0, y0, x1, y1) == plain


def test_many_tiles_are_stored_as_runs() -> None:
    grid = make_grid((64_000, 64_000), tile=64, overlap=0).keep([*range(10, 400), *range(500, 900)])
    assert grid.to_json()["tiles"] == [[10, 390], [500, 400]]


@pytest.mark.parametrize(("overlap", "stride"), [(-4, 4), (40, 4), (6, 4)])
def test_sizes_that_do_not_fit_are_refused(overlap: int, stride: int) -> None:
    with pytest.raises(ConfigError, match="overlap"):
        make_grid(tile=64, overlap=overlap, stride=stride)


def test_rounding_noise_makes_no_further_tile_or_map_pixel() -> None:
    """3072 px of 0.1 um are one tile of 1024 px of 0.3 um, and 12 px one map pixel; as floats a little more."""
    assert 3072 * 0.1 / 0.3 > 1024
    assert make_grid((3072, 3072), (0.1, 0.1), 0.3, 1024, 128).tiles == (0,)
    assert make_grid((12, 12), (0.1, 0.1), 0.3).map_size_map_px == (1, 1)


def test_more_tiles_than_any_slide_has_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"would be cut into 2049 x 2048 tiles\. Check its resolution"):
        make_grid((2049 * 64, 2048 * 64), (0.5, 0.5), overlap=0)


def test_a_slide_smaller_than_a_tile_has_one_tile() -> None:
    grid = make_grid((10, 10), tile=64)
    assert (grid.rows, grid.columns) == (1, 1)
    assert grid.map_size_map_px == (math.ceil(10 / 8), math.ceil(10 / 8))
