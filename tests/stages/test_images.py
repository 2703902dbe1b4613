"""OME-TIFFs of a segmentation: where they lie, what their pixels say, and that other programs read them."""

from __future__ import annotations

import math
import uuid
from pathlib import Path

import numpy as np
import ome_types
import openslide
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from typer.testing import CliRunner

from sampath_wsi.cli import app
from sampath_wsi.errors import ConfigError
from sampath_wsi.options import ImageOptions, StitchOptions
from sampath_wsi.probability import entropy_percent, to_bytes
from sampath_wsi.stages.images import CLASSES, ENTROPY, PROBABILITY, PictureFrame, write_images
from sampath_wsi.stages.stitch.stage import stitch
from sampath_wsi.stores.pyramid import even, mean_2x2, mode_2x2
from sampath_wsi.stores.store import open_store, read_array
from sampath_wsi.tiff import Picture, write_ome_tiff
from tests.helpers import CLASSES as COLOURS
from tests.helpers import make_grid, random_probability, slide_record, write_probabilities

ALL = ImageOptions(classes=True, probability="class 1", entropy=True)
Bounds = tuple[int, int, int, int]


def segmentation(folder: Path, *, bounds: Bounds | None = None, qupath: tuple[int, int] = (0, 0), **kind: str) -> Path:
    """The map of a slide of 2600 x 2300 px at 0.23 x 0.25 um/px: 299 x 288 pixels of 2 um without bounds."""
    grid = make_grid((2600, 2300), (0.23, 0.25), region=bounds, overlap=8)
    grid = grid.keep(grid.tiles[2:])  # a corner without tissue
    rng = np.random.default_rng(3)
    probability = random_probability(rng, len(grid.tiles), 3, grid.tile_map_px)
    slide = slide_record(qupath_offset=qupath)
    path = write_probabilities(folder / "probabilities.zarr", grid, probability, slide=slide)
    stitch(path, folder / "segmentation.ome.zarr", StitchOptions(**kind))  # type: ignore[arg-type]
    return folder / "segmentation.ome.zarr"


def level(path: Path, number: int = 0) -> NDArray[np.uint8]:
    with tifffile.TiffFile(path) as file:
        found: NDArray[np.uint8] = file.series[0].levels[number].asarray()
    return found


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    write_images(segmentation(folder), folder, ALL)
    return folder


@pytest.mark.parametrize("case", ["whole slide", "bounds that QuPath crops to", "bounds that QuPath ignores"])
def test_a_pixel_lies_where_the_slides_region_is(tmp_path: Path, case: str) -> None:
    bounds = None if case == "whole slide" else (301, 201, 2100, 1900)
    shown = (*bounds[:2], *bounds[2:]) if bounds and "crops" in case else (0, 0, 2600, 2300)
    store = segmentation(tmp_path, bounds=bounds, qupath=shown[:2])
    write_images(store, tmp_path, ImageOptions(classes=True, style="labels"))
    group, made_by = open_store(store, "segmentation")
    labels, picture = read_array(group, "labels/classes/0")[:], level(tmp_path / CLASSES)
    scale_x, scale_y, map_x, map_y = made_by.grid.map_to_level0_px()
    # As QuPath lays one image over another: scaled by the pixel sizes, corner on corner.
    pixels = ome_types.from_tiff(tmp_path / CLASSES).images[0].pixels
    assert pixels.physical_size_x == pixels.physical_size_y == made_by.grid.mpp_map
    px_x, px_y = pixels.physical_size_x / 0.23, pixels.physical_size_y / 0.25
    assert picture.shape == (math.ceil(shown[3] / px_y), math.ceil(shown[2] / px_x))
    places = np.argwhere(labels > 0)
    offsets = {
        (round(((map_y + y * scale_y) - shown[1]) / px_y) - y, round(((map_x + x * scale_x) - shown[0]) / px_x) - x)
        for y, x in places[:: len(places) // 50]
    }
    assert len(offsets) == 1
    dy, dx = offsets.pop()
    assert (picture[dy : dy + labels.shape[0], dx : dx + labels.shape[1]] == labels).all()
    assert np.count_nonzero(picture) == len(places)
    if "ignores" not in case:
        assert (dy, dx) == (0, 0)
    assert pixels.planes[0].position_x == pytest.approx(shown[0] * 0.23)
    assert pixels.planes[0].position_y == pytest.approx(shown[1] * 0.25)


def test_a_map_between_two_pixels_is_half_a_pixel_off_at_most() -> None:
    for x in range(1000, 1020):
        grid = make_grid((5000, 4000), (0.2325, 0.31), region=(x, 2 * x, 2000, 1500))
        frame = PictureFrame.of(grid, (0, 0))
        scale_x, scale_y, map_x, map_y = grid.map_to_level0_px()
        assert abs(frame.map_x_px - map_x / scale_x) <= 0.5
        assert abs(frame.map_y_px - map_y / scale_y) <= 0.5
        assert frame.size_px == (math.ceil(5000 / scale_x), math.ceil(4000 / scale_y))


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_values_are_percent_of_what_the_store_holds(tmp_path: Path, dtype: str) -> None:
    store = segmentation(tmp_path, dtype=dtype)
    write_images(store, tmp_path, ALL)
    group, _ = open_store(store, "segmentation")
    p = read_array(group, "0")[:].astype(np.float64) / (255 if dtype == "uint8" else 1)  # type: ignore[union-attr]
    labelled = read_array(group, "labels/classes/0")[:] > 0  # type: ignore[operator]
    assert np.abs(level(tmp_path / PROBABILITY) - 100 * p[1] * labelled).max() <= 0.5001
    bits = -(p * np.log2(np.where(p > 0, p, 1))).sum(0) * labelled
    assert np.abs(level(tmp_path / ENTROPY) - 100 * bits / math.log2(3)).max() <= 0.5001
    assert not labelled.all()


def test_classes_have_their_colours_and_glass_is_white(written: Path) -> None:
    group, _ = open_store(written / "segmentation.ome.zarr", "segmentation")
    palette = np.array([(255, 255, 255), *(entry["color"] for entry in COLOURS)], np.uint8)
    assert (level(written / CLASSES) == palette[read_array(group, "labels/classes/0")[:]]).all()


def test_every_level_is_made_of_the_one_before(written: Path, tmp_path: Path) -> None:
    write_images(written / "segmentation.ome.zarr", tmp_path, ImageOptions(classes=True, style="labels"))
    for path, halve in (
        (tmp_path / CLASSES, mode_2x2),
        (written / PROBABILITY, lambda plane: mean_2x2(plane[None])[0]),
        (written / ENTROPY, lambda plane: mean_2x2(plane[None])[0]),
    ):
        with tifffile.TiffFile(path) as file:
            levels = [each.asarray() for each in file.series[0].levels]
        assert [max(each.shape) for each in levels] == [299, 150]
        assert (halve(even(levels[0])) == levels[1]).all()


def test_other_programs_read_the_files(written: Path) -> None:
    for name, channel, colour in (
        (CLASSES, "Class", None),
        (PROBABILITY, "class 1 (%)", (0, 200, 0)),
        (ENTROPY, "Entropy (%)", (255, 255, 255)),
    ):
        image = ome_types.from_tiff(written / name, validate=True).images[0]  # by the schema of OME-XML
        assert image.name == f"a: {channel}"
        assert image.pixels.physical_size_x_unit.value == "µm"
        assert [each.name for each in image.pixels.channels] == [channel]
        assert image.pixels.channels[0].samples_per_pixel == (3 if name == CLASSES else 1)
        if colour is not None:
            assert image.pixels.channels[0].color.as_rgb_tuple()[:3] == colour
        with tifffile.TiffFile(written / name) as file:
            assert file.is_ome
            assert not file.is_bigtiff
            assert all(page.is_tiled and page.compression == 8 for page in file.pages)
        with openslide.OpenSlide(written / name) as slide:
            assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(2)
            seen = np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))
        expected = level(written / name)
        assert (seen == (expected if expected.ndim == 3 else expected[..., None])).all()


def test_the_bytes_depend_on_the_segmentation_alone(written: Path, tmp_path: Path) -> None:
    write_images(written / "segmentation.ome.zarr", tmp_path, ALL, threads=5)
    for name in (CLASSES, PROBABILITY, ENTROPY):
        assert (tmp_path / name).read_bytes() == (written / name).read_bytes()


@pytest.mark.parametrize(("height", "width", "levels"), [(1300, 1100, 4), (3, 257, 2), (1, 1, 1)])
def test_pictures_of_all_sizes_are_whole(tmp_path: Path, height: int, width: int, levels: int) -> None:
    values = np.random.default_rng(0).integers(0, 101, (height, width), np.uint8)
    picture = Picture("A & <B> é", (width, height), 2.0, (0.0, 0.0), "A & <B> (%)", (1, 2, 3), str(uuid.UUID(int=1)))

    def compute(window: tuple[int, int, int, int]) -> NDArray[np.uint8]:
        y0, x0, y1, x1 = window
        return values[y0:y1, x0:x1]

    write_ome_tiff(tmp_path / "a.ome.tif", picture, compute, mode_2x2)
    expected = values
    for number in range(levels):
        assert (level(tmp_path / "a.ome.tif", number) == expected).all()
        expected = mode_2x2(even(expected))
    image = ome_types.from_tiff(tmp_path / "a.ome.tif", validate=True).images[0]
    assert (image.name, image.pixels.channels[0].name) == ("A & <B> é", "A & <B> (%)")


def test_what_may_pass_4_gb_is_bigtiff(tmp_path: Path) -> None:
    picture = Picture("a", (600, 600), 1.0, (0.0, 0.0), "a", (1, 2, 3), str(uuid.UUID(int=1)))

    def compute(window: tuple[int, int, int, int]) -> NDArray[np.uint8]:
        return np.full((window[2] - window[0], window[3] - window[1]), 7, np.uint8)

    for limit, big in ((1 << 20, True), (1 << 21, False)):
        write_ome_tiff(tmp_path / "a.ome.tif", picture, compute, mode_2x2, classic_bytes=limit)
        with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
            assert file.is_bigtiff == big
        assert (level(tmp_path / "a.ome.tif") == 7).all()


def test_a_picture_that_fails_leaves_nothing(tmp_path: Path) -> None:
    picture = Picture("a", (600, 600), 1.0, (0.0, 0.0), "a", (1, 2, 3), str(uuid.UUID(int=1)))

    def compute(window: tuple[int, int, int, int]) -> NDArray[np.uint8]:
        if window[0] > 0:
            raise OSError("the disk is gone")
        return np.zeros((window[2] - window[0], window[3] - window[1]), np.uint8)

    with pytest.raises(OSError, match="the disk is gone"):
        write_ome_tiff(tmp_path / "a.ome.tif", picture, compute, mode_2x2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("classes", [2, 3, 8])
def test_entropy_is_0_where_certain_and_100_where_all_are_equal(classes: int) -> None:
    certain = np.zeros((classes, 1, 2), np.float32)
    certain[-1] = 1
    even_spread = np.full((classes, 1, 2), 1 / classes, np.float32)
    for make in (lambda p: p, lambda p: to_bytes(p, 0)):
        assert (entropy_percent(make(certain)) == 0).all()
        assert (entropy_percent(make(even_spread)) == 100).all()
    half = certain / 2
    half[0] += 0.5
    assert (entropy_percent(half) == round(100 / math.log2(classes))).all()


def test_entropy_of_one_class_or_of_nothing_is_0() -> None:
    assert (entropy_percent(np.ones((1, 2, 2), np.float32)) == 0).all()
    assert (entropy_percent(np.zeros((3, 2, 2), np.uint8)) == 0).all()


@settings(max_examples=50)
@given(st.lists(st.integers(0, 255), min_size=2, max_size=12).filter(any), st.randoms())
def test_entropy_does_not_depend_on_the_order_of_classes(weights: list[int], random: object) -> None:
    p = np.array(weights, np.float32)[:, None, None] / sum(weights)
    found = entropy_percent(p)
    random.shuffle(weights)  # type: ignore[attr-defined]
    other = entropy_percent(np.array(weights, np.float32)[:, None, None] / sum(weights))
    assert abs(int(found[0, 0]) - int(other[0, 0])) <= 1  # sums of floats in another order
    assert 0 <= found[0, 0] <= 100


def test_an_unknown_class_is_refused_by_name(written: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"knows no class 'Tumour'\. Its classes: class 0, class 1, class 2"):
        write_images(written / "segmentation.ome.zarr", tmp_path, ImageOptions(classes=True, probability="Tumour"))
    with pytest.raises(ConfigError, match="no picture is asked for"):
        write_images(written / "segmentation.ome.zarr", tmp_path, ImageOptions())
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_what_is_asked_for(written: Path, tmp_path: Path) -> None:
    words = ["images", str(written / "segmentation.ome.zarr"), "--out-dir", str(tmp_path)]
    done = CliRunner().invoke(app, [*words, "--entropy", "--probability", "class 2"])
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in tmp_path.iterdir()) == [ENTROPY, PROBABILITY]
