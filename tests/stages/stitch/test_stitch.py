from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sampath_wsi.errors import StoreError
from sampath_wsi.geometry import TileGrid
from sampath_wsi.options import StitchOptions
from sampath_wsi.probability import argmax_label, to_bytes
from sampath_wsi.stages.stitch.blend import at_least, bilinear, blend, blending_ramp
from sampath_wsi.stages.stitch.stage import stitch
from sampath_wsi.stores import pyramid
from sampath_wsi.stores.pyramid import even, mean_2x2, mode_2x2
from sampath_wsi.stores.store import open_store, read_array
from tests.helpers import make_grid, random_probability, write_probabilities


def reference(grid: TileGrid, probability: NDArray[np.floating]) -> NDArray[np.float64]:
    """The map by definition, in float64, tile after tile: sum(p w) / sum(w)."""
    width, height = grid.map_size_map_px
    size, overlap = grid.tile_map_px, grid.tile_map_px - grid.step_map_px
    total = np.zeros((probability.shape[1], height + size, width + size))
    weights = np.zeros(total.shape[1:])
    for position, tile in enumerate(grid.tiles):
        x, y = grid.tile_corner_map_px(tile)
        for row in range(size):
            for column in range(size):
                edge_y, edge_x = min(row, size - 1 - row) + 0.5, min(column, size - 1 - column) + 0.5
                weight = min(1.0, edge_y / overlap) * min(1.0, edge_x / overlap) if overlap else 1.0
                total[:, y + row, x + column] += probability[position, :, row, column].astype(float) * weight
                weights[y + row, x + column] += weight
    return np.divide(total, weights, out=np.zeros_like(total), where=weights > 0)[:, :height, :width]


def stitched(path: Path, options: StitchOptions | None = None) -> tuple[NDArray[np.generic], NDArray[np.uint8]]:
    out = path.with_name("segmentation.ome.zarr")
    stitch(path, out, options)
    group, _ = open_store(out, "segmentation")
    return np.asarray(read_array(group, "0")[:]), np.asarray(read_array(group, "labels/classes/0")[:])


@pytest.mark.parametrize("overlap", [0, 8, 32])
@pytest.mark.parametrize("mpp", [(0.25, 0.25), (0.2325, 0.31)])
def test_equals_a_plain_float64_reference(tmp_path: Path, overlap: int, mpp: tuple[float, float]) -> None:
    rng = np.random.default_rng(1)
    grid = make_grid((900, 700), mpp, overlap=overlap)
    grid = grid.keep(rng.choice(grid.tiles, size=len(grid.tiles) * 2 // 3, replace=False))
    probability = random_probability(rng, len(grid.tiles), 3, grid.tile_map_px).astype(np.float64)
    path = write_probabilities(tmp_path / "probabilities.zarr", grid, probability)
    found, label = stitched(path, StitchOptions(dtype="float32", mask_to_tissue=False))
    expected = reference(grid, probability.astype(np.float32))
    assert np.abs(found - expected).max() <= 1e-6
    assert ((label == 0) == (expected.sum(0) == 0)).all()
    clear = np.sort(expected, axis=0)[-1] - np.sort(expected, axis=0)[-2] > 1e-5
    assert (label[clear] == expected.argmax(0)[clear] + 1).all()


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.integers(0, 255), overlap=st.sampled_from([0, 4, 16, 32]))
def test_constant_in_constant_out(tmp_path_factory: pytest.TempPathFactory, value: int, overlap: int) -> None:
    grid = make_grid((500, 400), overlap=overlap)
    constant = np.empty((len(grid.tiles), 2, grid.tile_map_px, grid.tile_map_px), np.float32)
    constant[:, 0], constant[:, 1] = value / 255, 1 - value / 255
    path = write_probabilities(tmp_path_factory.mktemp("constant") / "probabilities.zarr", grid, constant)
    found, _ = stitched(path)
    assert (found[0] == value).all()
    assert (found[1] == 255 - value).all()


def test_classes_sum_to_one_where_tiles_are(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    grid = make_grid((1500, 900))
    grid = grid.keep(grid.tiles[::3])
    path = write_probabilities(
        tmp_path / "probabilities.zarr", grid, random_probability(rng, len(grid.tiles), 5, grid.tile_map_px)
    )
    found, label = stitched(path)
    total = found.astype(int).sum(0)
    assert set(np.unique(total)) == {0, 255}
    assert ((total > 0) == (label > 0)).all()


def test_independent_of_tile_order_and_chunk_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    grid = make_grid((2600, 1800))
    probability = random_probability(rng, len(grid.tiles), 3, grid.tile_map_px)
    path = write_probabilities(tmp_path / "probabilities.zarr", grid, probability)
    whole, labels = stitched(path)
    monkeypatch.setattr(pyramid, "_CHUNK_MAP_PX", 48)
    monkeypatch.setattr(pyramid, "BLOCK_MAP_PX", 96)
    out = tmp_path / "small.ome.zarr"
    stitch(path, out, threads=3)
    group, _ = open_store(out, "segmentation")
    assert (read_array(group, "0")[:] == whole).all()
    assert (read_array(group, "labels/classes/0")[:] == labels).all()


def test_no_seam_at_tile_borders() -> None:
    """Two tiles that disagree blend over the whole overlap: no step between neighbours is larger than the ramp's."""
    grid = make_grid((192, 64), (1.0, 1.0), 1.0, 128, 64, 4)
    probability = np.zeros((2, 1, 32, 32), np.float32)
    probability[1] = 1
    array = zarr.array(probability, chunks=(1, 1, 32, 32))
    line = blend(array, grid, 0, 0, *grid.map_size_map_px)[0, 5]
    assert line[0] == 0
    assert line[-1] == 1
    assert np.diff(line).min() >= 0
    assert np.diff(line).max() <= 1.5 / 16


def test_ramp_is_positive_and_symmetric() -> None:
    ramp = blending_ramp(32, 8)
    assert ramp.min() > 0
    assert (ramp == ramp[::-1]).all()
    assert ramp[8] == 1


def test_the_class_ends_at_a_smooth_outline_of_the_tissue(tmp_path: Path) -> None:
    grid = make_grid((1600, 1600))
    y, x = np.mgrid[:50, :50] + 0.5
    distance = np.hypot(x - 25, y - 25)
    tissue = np.clip(128 + (15 - distance) * 64, 0, 255).astype(np.uint8)
    probability = np.full((len(grid.tiles), 1, grid.tile_map_px, grid.tile_map_px), 1, np.float32)
    _, label = stitched(write_probabilities(tmp_path / "probabilities.zarr", grid, probability, tissue))
    expected = np.pi * (15 * 4) ** 2
    assert label.sum() == pytest.approx(expected, rel=0.01)
    # A map pixel is a quarter of the mask's: the disc's centre, corner convention, is at 4 x 25.
    assert np.argwhere(label).mean(axis=0) + 0.5 == pytest.approx([100, 100], abs=0.1)


def test_pyramid_levels_halve_and_carry_means_and_modes(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    grid = make_grid((5000, 4300), tile=512)
    path = write_probabilities(
        tmp_path / "probabilities.zarr", grid, random_probability(rng, len(grid.tiles), 2, grid.tile_map_px)
    )
    out = tmp_path / "segmentation.ome.zarr"
    result = stitch(path, out)
    assert result.levels == 3
    group, _ = open_store(out, "segmentation")
    for name, halve in (("", mean_2x2), ("labels/classes/", mode_2x2)):
        levels = [np.asarray(read_array(group, f"{name}{level}")[:]) for level in range(3)]
        for fine, coarse in pairwise(levels):
            assert np.array_equal(coarse, halve(even(fine)))


def test_a_slide_without_tissue_gives_an_empty_map(tmp_path: Path) -> None:
    grid = make_grid().keep([])
    path = write_probabilities(tmp_path / "probabilities.zarr", grid, np.zeros((0, 3, 16, 16), np.float32))
    found, label = stitched(path)
    assert not found.any()
    assert not label.any()


def test_a_damaged_chunk_is_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    grid = make_grid()
    path = write_probabilities(
        tmp_path / "probabilities.zarr", grid, random_probability(rng, len(grid.tiles), 3, grid.tile_map_px)
    )
    shard = next(p for p in sorted((path / "probability" / "c").rglob("*")) if p.is_file())
    damaged = bytearray(shard.read_bytes())
    damaged[10] ^= 0xFF
    shard.write_bytes(damaged)
    with pytest.raises(StoreError, match=r"probabilities\.zarr: chunk 0/0/0/0 of the array 'probability' is damaged"):
        stitch(path, tmp_path / "segmentation.ome.zarr")
    shard.unlink()
    with pytest.raises(StoreError, match=r"chunk 0/0/0/0 of the array 'probability' .*its file is missing"):
        stitch(path, tmp_path / "segmentation.ome.zarr")
    assert not (tmp_path / "segmentation.ome.zarr").exists()


@given(st.integers(2, 9), st.integers(0, 2**32 - 1))
def test_bytes_sum_to_255_and_are_close(classes: int, seed: int) -> None:
    probability = random_probability(np.random.default_rng(seed), 1, classes, 8)
    stored = to_bytes(probability, 1)
    assert (stored.astype(int).sum(1) == 255).all()
    assert np.abs(stored / 255 - probability).max() <= 1.001 / 255


def test_bytes_are_the_same_from_torch() -> None:
    import torch

    probability = random_probability(np.random.default_rng(6), 3, 5, 8)
    from_torch = to_bytes(torch.from_numpy(probability), 1).numpy()
    assert np.abs(from_torch.astype(int) - to_bytes(probability, 1)).max() <= 1
    assert (from_torch.astype(int).sum(1) == 255).all()


def test_argmax_label_equals_argmax() -> None:
    probability = random_probability(np.random.default_rng(7), 1, 5, 32)[0]
    assert (argmax_label(probability) == probability.argmax(0) + 1).all()
    ties = np.random.default_rng(7).integers(0, 3, (5, 40, 40), np.uint8)
    assert (argmax_label(ties) == np.where(ties.any(0), ties.argmax(0) + 1, 0)).all()
    assert not argmax_label(np.zeros((3, 4, 4), np.float32)).any()


def test_bilinear_reproduces_a_plane() -> None:
    y, x = np.mgrid[:6, :7].astype(np.float32)
    rows, columns = np.array([0.0, 1.25, 4.9]), np.array([0.5, 3.0, 5.75])
    expected = 2 * rows[:, None] + 3 * columns
    assert np.allclose(bilinear(2 * y + 3 * x, rows, columns), expected, atol=1e-5)


@given(st.data())
def test_looking_up_a_part_of_a_mask_is_interpolating_all_of_it(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    # Of few values, in patches: so that some parts are all alike, and interpolation meets the limit itself.
    mask = np.kron(rng.choice([0, 64, 128, 192], (3, 4)), np.ones((4, 4))).astype(np.uint8)
    # Positions in eighths, whose products float32 holds exactly; the map may begin before the mask and end past it.
    first, step = data.draw(st.integers(-8, 120)), data.draw(st.integers(1, 9))
    rows, columns = ((first + shift + step * np.arange(7)) / 8 for shift in (0, data.draw(st.integers(-30, 30))))
    expected = bilinear(mask.astype(np.float32), rows, columns) >= 128
    assert (np.broadcast_to(at_least(mask, rows, columns, 128), expected.shape) == expected).all()


def test_halving_takes_rounded_means_and_frequent_labels() -> None:
    rng = np.random.default_rng(8)
    values = rng.integers(0, 256, (2, 40, 60), np.uint8)
    means = values.reshape(2, 20, 2, 30, 2).astype(float).mean((2, 4))
    assert (mean_2x2(values) == np.floor(means + 0.5)).all()
    assert mean_2x2(values.astype(np.float32)) == pytest.approx(means, abs=1e-4)
    labels = rng.integers(0, 4, (40, 60), np.uint8)
    for found, four in zip(
        mode_2x2(labels).ravel(), labels.reshape(20, 2, 30, 2).swapaxes(1, 2).reshape(-1, 4), strict=True
    ):
        assert found == max(four.tolist(), key=four.tolist().count)  # of equals the first
    assert even(labels[:3, :5]).tolist() == np.pad(labels[:3, :5], (0, 1), mode="edge").tolist()
