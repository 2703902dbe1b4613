from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
from numpy.typing import NDArray

from sampath_wsi.errors import SlideError
from sampath_wsi.geometry import Box
from sampath_wsi.slides import SlideReader, inspect_slide, openslide_levels
from sampath_wsi.slides import reader as readers
from sampath_wsi.slides.resampling import Resampling
from sampath_wsi.stages.stitch.blend import bilinear
from tests.helpers import blob_slide, write_slide


@pytest.fixture
def checkered(tmp_path: Path) -> Path:
    y, x = np.mgrid[:512, :640]
    rgb = np.stack([x % 251, y % 241, (x // 2 + y) % 239], -1).astype(np.uint8)
    return write_slide(tmp_path / "s.tif", rgb, 0.5, levels=3)


def test_what_a_slide_says_of_itself(checkered: Path) -> None:
    info = inspect_slide(checkered)
    assert info.size_level0_px == (640, 512)
    assert info.mpp == pytest.approx((0.5, 0.5), rel=1e-6)
    assert info.mpp_source == "metadata"
    assert len(info.level_sizes) == 3
    assert info.bounds_level0_px == (0, 0, 640, 512)


def test_whole_pixels_are_read_as_they_are(checkered: Path) -> None:
    reader = SlideReader(inspect_slide(checkered))
    found = reader.read(Box(100, 50, 64, 32), (64, 32))
    expected = np.asarray(openslide.OpenSlide(checkered).read_region((100, 50), 0, (64, 32)).convert("RGB"))
    assert (found == expected).all()


def test_area_mean_of_a_whole_number_of_pixels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (300, 300, 3), np.uint8)
    reader = SlideReader(inspect_slide(write_slide(tmp_path / "s.tif", rgb)))
    found = reader.read(Box(30, 60, 90, 60), (30, 20)).astype(float)
    mean = rgb[60:120, 30:120].reshape(20, 3, 30, 3, 3).mean((1, 3))
    assert np.abs(found - mean).max() <= 1


def test_a_fractional_rectangle_is_placed_exactly(tmp_path: Path) -> None:
    x = np.rint((np.arange(400) + 0.5) / 400 * 255)
    rgb = np.repeat(np.tile(x, (400, 1))[..., None], 3, -1).astype(np.uint8)
    reader = SlideReader(inspect_slide(write_slide(tmp_path / "s.tif", rgb)))
    box = Box(100.37, 50.81, 2.15 * 64, 2.15 * 64)
    found = reader.read(box, (64, 64))[..., 0].astype(float)
    centres = box.x + (np.arange(64) + 0.5) * 2.15
    assert np.abs(found - centres / 400 * 255).max() < 1.2


def test_neighbours_of_fractional_size_agree_where_they_meet(tmp_path: Path) -> None:
    """A tile is resampled as if it were part of a larger picture: its pixels at the edge too."""
    rgb = np.random.default_rng(1).integers(0, 256, (200, 400, 3), np.uint8)
    reader = SlideReader(inspect_slide(write_slide(tmp_path / "s.tif", rgb)))
    for scale in (2.15, 0.64):
        left, right = (reader.read(Box(50.37 + x * scale, 60.81, 32 * scale, 32 * scale), (32, 32)) for x in (0, 32))
        both = reader.read(Box(50.37, 60.81, 64 * scale, 32 * scale), (64, 32))
        assert np.abs(np.concatenate([left, right], axis=1).astype(int) - both).max() <= 1


def test_enlarging_interpolates_between_the_centres_of_pixels(tmp_path: Path) -> None:
    rgb = np.random.default_rng(2).integers(0, 256, (80, 80, 3), np.uint8)
    reader = SlideReader(inspect_slide(write_slide(tmp_path / "s.tif", rgb)))
    found = reader.read(Box(20.4, 10.3, 40, 30), (64, 48))
    rows, columns = (first + (np.arange(n) + 0.5) * 0.625 - 0.5 for first, n in ((10.3, 48), (20.4, 64)))
    for channel in range(3):
        expected = bilinear(rgb[..., channel].astype(np.float32), rows, columns)
        assert np.abs(found[..., channel] - expected).max() <= 1


def test_what_counts_as_whole_pixels() -> None:
    assert Resampling.plan(Box(10, 20, 128, 64), (64, 32)).factors == (2, 2)
    assert Resampling.plan(Box(10.0001, 20, 128.0001, 64), (64, 32)).factors == (2, 2)
    for box in (Box(10.05, 20, 128, 64), Box(10, 20, 128.05, 64), Box(10, 20.05, 128, 64), Box(10, 20, 128, 64.05)):
        assert Resampling.plan(box, (64, 32)).factors == (0, 0)


def test_a_level_whose_size_was_rounded_serves_its_resolution(checkered: Path) -> None:
    reader = SlideReader(replace(inspect_slide(checkered), downsamples=(1.0, 4.0003, 16.2)))
    assert [reader.level_for(wanted) for wanted in (0.5, 3.9, 4, 16, 16.2)] == [0, 0, 1, 1, 2]


def test_the_best_level_at_least_as_fine_as_wanted_is_read(checkered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, levels = SlideReader(inspect_slide(checkered)), []
    original = SlideReader._read_level

    def spy(self: SlideReader, level, plan, what):  # type: ignore[no-untyped-def]
        levels.append(level)
        return original(self, level, plan, what)

    monkeypatch.setattr(SlideReader, "_read_level", spy)
    for wanted in (0.7, 1, 1.9, 2, 3.9, 4, 9):
        reader.read(Box(0, 0, 64 * wanted, 64 * wanted), (64, 64))
    assert levels == [0, 0, 0, 1, 1, 2, 2]


def test_outside_the_slide_is_background(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "s.tif", np.zeros((200, 200, 3), np.uint8))
    found = SlideReader(inspect_slide(path)).read(Box(-50, 150, 100, 100), (100, 100))
    assert (found[:50, 50:] == 0).all()
    assert (found[:, :50] == 255).all()
    assert (found[50:] == 255).all()


def test_an_overview_in_pieces_equals_one_read(checkered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = SlideReader(inspect_slide(checkered))
    whole = reader.overview(Box(0, 0, 640, 512), (160, 128))
    monkeypatch.setattr(readers, "_OVERVIEW_READ_PX", 32)
    assert (reader.overview(Box(0, 0, 640, 512), (160, 128)) == whole).all()


def test_resolution_missing_implausible_and_overridden(tmp_path: Path) -> None:
    missing = blob_slide(tmp_path / "missing.tif", mpp=None)
    with pytest.raises(SlideError, match=r"missing\.tif: its metadata hold no resolution.*column 'mpp'"):
        inspect_slide(missing)
    absurd = blob_slide(tmp_path / "absurd.tif", mpp=1000)
    with pytest.raises(SlideError, match="1000 x 1000 um/px, which no scanner has"):
        inspect_slide(absurd)
    info = inspect_slide(absurd, mpp=(0.5, 0.4))
    assert (info.mpp, info.mpp_source) == ((0.5, 0.4), "sample sheet")


@pytest.mark.parametrize("mpp", [0.025, 0.079, 10.5, 25400 / 300])
def test_metadata_are_held_to_what_scanners_have(tmp_path: Path, mpp: float) -> None:
    path = write_slide(tmp_path / "s.tif", np.full((200, 200, 3), 200, np.uint8), mpp)
    with pytest.raises(
        SlideError, match=rf"give {mpp:g} x {mpp:g} um/px, which no scanner has .*column 'mpp' of the s"
    ):
        inspect_slide(path)
    with pytest.raises(SlideError, match=r"Give the true value as mpp \(of a command: --mpp\)\.$"):
        inspect_slide(path, mpp_source="command line")
    assert inspect_slide(path, mpp=(mpp, mpp)).mpp == (mpp, mpp)


def test_no_slide_is_longer_than_400_mm(tmp_path: Path) -> None:
    strip = np.full((16, 40_100, 3), 200, np.uint8)
    with pytest.raises(SlideError, match=r"give 10 x 10 um/px, which no scanner has \(401 x 0\.16 mm\)"):
        inspect_slide(write_slide(tmp_path / "s.tif", strip, mpp=10))
    assert inspect_slide(write_slide(tmp_path / "t.tif", strip[:, :39_900], mpp=10)).mpp == (10, 10)


RGB = np.full((200, 200, 3), 200, np.uint8)
Z_STACK = {"axes": "ZYXS"}


@pytest.mark.parametrize(
    ("pixels", "options", "message"),
    [
        (RGB.transpose(2, 0, 1), {"ome": True, "photometric": "minisblack"}, "an OME-TIFF whose 3 channels are images"),
        (np.stack([RGB] * 4), {"ome": True, "metadata": Z_STACK}, "an OME-TIFF whose 4 focal planes are images"),
        (RGB.transpose(2, 0, 1), {"photometric": "minisblack"}, "it holds 3 images of its full size"),
        (RGB.astype(np.uint16) * 16, {}, "its pixels have 16 bits a channel"),
        (np.dstack([RGB, RGB]), {"planarconfig": "contig"}, "its pixels have 6 channels"),
    ],
)
def test_tiffs_that_would_be_read_wrongly(
    tmp_path: Path, pixels: NDArray[np.generic], options: dict[str, object], message: str
) -> None:
    resolution = {"resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER", "tile": (128, 128)}
    path = tmp_path / "s.tif"
    tifffile.imwrite(path, pixels, **{"photometric": "rgb", **resolution, **options})
    with pytest.raises(SlideError, match=rf"s\.tif: {message}.* Convert it to a single plane of RGB"):
        inspect_slide(path)


@pytest.mark.parametrize(
    ("pixels", "options"),
    [
        (RGB, {"ome": True}),
        (RGB.transpose(2, 0, 1), {"planarconfig": "separate"}),
        (RGB[..., 0], {"photometric": "minisblack"}),
    ],
)
def test_tiffs_of_one_plane_are_read(tmp_path: Path, pixels: NDArray[np.uint8], options: dict[str, object]) -> None:
    resolution = {"resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER", "tile": (128, 128)}
    tifffile.imwrite(tmp_path / "s.tif", pixels, **{"photometric": "rgb", **resolution, **options})
    assert (SlideReader(inspect_slide(tmp_path / "s.tif")).read(Box(0, 0, 99, 99), (99, 99)) == 200).all()


def test_fingerprint_changes_with_one_byte(tmp_path: Path) -> None:
    path = blob_slide(tmp_path / "s.tif")
    before = inspect_slide(path).fingerprint
    assert inspect_slide(path).fingerprint == before
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)
    assert inspect_slide(path).fingerprint != before


def test_a_poisoned_handle_is_opened_anew_once(checkered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = SlideReader(inspect_slide(checkered))
    opened, failures = [], iter([True, False])
    original_open, original_read = openslide_levels.open_slide, openslide.OpenSlide.read_region

    def counting_open(path: Path) -> openslide.OpenSlide:
        opened.append(path)
        return original_open(path)

    def failing_once(self, *args):  # type: ignore[no-untyped-def]
        if next(failures, False):
            raise openslide.OpenSlideError("Bogus marker length")
        return original_read(self, *args)

    monkeypatch.setattr(openslide_levels, "open_slide", counting_open)
    monkeypatch.setattr(openslide.OpenSlide, "read_region", failing_once)
    reader.read(Box(0, 0, 64, 64), (64, 64))
    assert len(opened) == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.svs", "there is no such slide"),
        ("folder", "this is a directory"),
        ("empty.svs", "the file is empty"),
        ("text.svs", "not a slide that OpenSlide knows"),
    ],
)
def test_files_that_are_no_slides(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.svs").touch()
    (tmp_path / "text.svs").write_text("not a slide")
    with pytest.raises(SlideError, match=message):
        inspect_slide(tmp_path / name)


def test_real_bad_slides(shared_data: Path) -> None:
    with pytest.raises(SlideError, match=r"broken\.svs: not a slide"):
        inspect_slide(shared_data / "slides" / "broken.svs")
    with pytest.raises(SlideError, match=r"unopenable\.tiff: cannot be opened: Unsupported TIFF compression"):
        inspect_slide(shared_data / "slides" / "unopenable.tiff")
    info = inspect_slide(shared_data / "slides" / "unreadable.svs")
    with pytest.raises(SlideError, match=r"unreadable\.svs: cannot read tile 3 .*Bogus marker length"):
        SlideReader(info).read(Box(0, 0, 16, 16), (16, 16), what="tile 3")


def test_real_slides_of_every_format(shared_data: Path) -> None:
    names = ("CMU-1-Small-Region.svs", "test3-DAPI-2-(387).ndpi", "multiframe_camelyon_challenge_image.dcm")
    svs, ndpi, dicom = (shared_data / "slides" / name for name in names)
    with pytest.raises(SlideError, match=r"its metadata give 28\.969 x 28\.968 um/px"):
        inspect_slide(dicom)
    found = {path: inspect_slide(path, mpp=(28.969, 28.968) if path is dicom else None) for path in (svs, ndpi, dicom)}
    assert [info.vendor for info in found.values()] == ["aperio", "hamamatsu", "dicom"]
    assert [round(info.mpp[0], 3) for info in found.values()] == [0.499, 0.228, 28.969]
    for info in found.values():
        assert SlideReader(info).overview(Box(0, 0, *info.size_level0_px), (100, 100)).std() > 5
