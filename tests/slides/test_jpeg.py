"""Levels of JPEG tiles that are decoded directly: pixel by pixel what OpenSlide gives, each tile decoded once."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import imagecodecs
import numpy as np
import openslide
import pytest
import rasterio
import tifffile
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from sampath_wsi.errors import SlideError
from sampath_wsi.geometry import Box
from sampath_wsi.slides import SlideInfo, SlideReader, inspect_slide
from sampath_wsi.slides.jpeg import JpegLevel, JpegTiles, UndecodableError
from sampath_wsi.stages.tile import TileOptions, TileRequest, tile_slide
from tests.helpers import SPEC, write_slide

WIDTH, HEIGHT, TILE = 700, 500, 128
# Inside, over tile borders, over every edge, over all of them at once, and far outside; whole and fractional scales.
REGIONS = (
    (Box(130, 140, 100, 90), (100, 90)),
    (Box(0, 0, 256, 256), (128, 128)),
    (Box(-40, -30, 200, 120), (100, 60)),
    (Box(600, 400, 200, 200), (100, 100)),
    (Box(-64, -64, 832, 640), (104, 80)),
    (Box(800, 600, 50, 50), (50, 50)),
    (Box(-300, 100, 60, 60), (30, 30)),
    (Box(33.3, 71.7, 2.15 * 90, 2.15 * 70), (90, 70)),
    (Box(-20.4, 390.2, 1.002 * 128, 1.002 * 128), (128, 128)),
    (Box(50.2, 60.1, 40.5, 40.5), (81, 81)),
)


@pytest.fixture(scope="module")
def texture() -> NDArray[np.uint8]:
    noise = np.random.default_rng(0).normal(0, 200, (HEIGHT, WIDTH, 3))
    return np.clip(ndimage.gaussian_filter(noise, (1.2, 1.2, 0.3)) + 150, 0, 255).astype(np.uint8)


def write_jpeg(path: Path, rgb: NDArray[np.uint8], **options: object) -> Path:
    """A tiled TIFF of JPEG as GDAL writes it: colours as YCbCr 4:2:0 and tables shared, unless told otherwise."""
    profile = {"photometric": "YCBCR", "blockxsize": TILE, "blockysize": TILE} | options
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=rgb.shape[1],
        height=rgb.shape[0],
        count=3,
        dtype="uint8",
        compress="JPEG",
        tiled=True,
        transform=rasterio.Affine(2, 0, 0, 0, -2, 0),
        **profile,
    ) as file:
        file.write(rgb.transpose(2, 0, 1))
    return path


def write_own(path: Path, rgb: NDArray[np.uint8], levels: int = 1, **options: object) -> Path:
    """A tiled TIFF of JPEG as tifffile writes it: tables in every tile; levels at 1, 4, 16, rounded down."""
    with tifffile.TiffWriter(path) as file:
        for level in range(levels):
            step = 4**level
            small = rgb[: rgb.shape[0] // step * step : step, : rgb.shape[1] // step * step : step]
            settings = {"tile": (TILE, TILE), "photometric": "rgb", "compression": "jpeg", "metadata": None} | options
            file.write(np.ascontiguousarray(small), subfiletype=int(level > 0), **settings)
    return path


def inspect(path: Path) -> SlideInfo:
    return inspect_slide(path, mpp=(0.5, 0.5))


def assert_equal_to_openslide(info: SlideInfo, regions: tuple[tuple[Box, tuple[int, int]], ...] = REGIONS) -> None:
    with SlideReader(info) as ours, SlideReader(info, direct=False) as reference:
        for box, size in regions:
            assert (ours.read(box, size) == reference.read(box, size)).all(), (box, size)


def no_openslide(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("OpenSlide was asked")

    monkeypatch.setattr(openslide.OpenSlide, "read_region", refuse)


FORMATS = {
    "shared tables, 4:2:0": lambda path, rgb: write_jpeg(path, rgb),
    "bigtiff": lambda path, rgb: write_jpeg(path, rgb, bigtiff="YES"),
    "rgb, shared tables": lambda path, rgb: write_jpeg(path, rgb, photometric="RGB"),
    "oblong tiles": lambda path, rgb: write_jpeg(path, rgb, blockxsize=240, blockysize=96),
    "own tables, 4:4:4": lambda path, rgb: write_own(path, rgb, subsampling=(1, 1)),
    "own tables, 4:2:2": lambda path, rgb: write_own(path, rgb, subsampling=(2, 1)),
    "rgb, own tables": lambda path, rgb: write_own(path, rgb, compressionargs={"outcolorspace": "rgb"}),
}


@pytest.mark.parametrize("name", FORMATS)
def test_pixels_equal_openslides(
    tmp_path: Path, texture: NDArray[np.uint8], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = inspect(FORMATS[name](tmp_path / "s.tif", texture))
    assert_equal_to_openslide(info)
    no_openslide(monkeypatch)
    with SlideReader(info) as reader:
        for box, size in REGIONS:
            reader.read(box, size)
        reader.overview(Box(0, 0, WIDTH, HEIGHT), (70, 50), threads=2)


def test_levels_of_whole_downsample_are_read_directly(
    tmp_path: Path, texture: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    # 672 x 480 halves to whole pixels, 700 x 500 does not: 700 / 43 is not 16.
    whole = inspect(write_own(tmp_path / "whole.tif", texture[:480, :672], levels=3))
    odd = inspect(write_own(tmp_path / "odd.tif", texture, levels=3))
    assert whole.downsamples == (1, 4, 16)
    assert not odd.downsamples[2].is_integer()
    regions = tuple(
        (Box(x, 60, 8 * 40, 8 * 40), (40 * 8 // step, 40 * 8 // step)) for x in (0, 48) for step in (4, 8, 16)
    )
    assert_equal_to_openslide(whole, regions)
    assert_equal_to_openslide(odd, regions)
    no_openslide(monkeypatch)
    for box, size in regions:
        SlideReader(whole).read(box, size)
    with pytest.raises(AssertionError, match="OpenSlide was asked"):
        SlideReader(odd).read(Box(0, 0, 400, 400), (20, 20))


def test_real_slides_equal_openslides(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    regions = tuple(
        (Box(x, y, scale * 200, scale * 200), (200, 200))
        for x, y in ((-50, 100), (300.3, 400.6))
        for scale in (1, 2, 2.3)
    )
    for name in ("CMU-1-Small-Region.svs", "BRACS_1640_N_3_cropped.tiff", "test3-DAPI-2-(387).ndpi"):
        assert_equal_to_openslide(inspect(shared_data / "slides" / name), regions)
    svs = inspect(shared_data / "slides" / "CMU-1-Small-Region.svs")
    whole = Box(0, 0, *svs.size_level0_px)
    with SlideReader(svs, direct=False) as reference:
        expected = reference.read(whole, svs.size_level0_px)
    no_openslide(monkeypatch)
    with SlideReader(svs) as ours:
        assert (ours.read(whole, svs.size_level0_px) == expected).all()


def test_missing_tiles_are_read_by_openslide(tmp_path: Path, texture: NDArray[np.uint8]) -> None:
    path = write_jpeg(tmp_path / "s.tif", texture[:256, :256])
    tiff = tifffile.TiffFile(path)
    counts = tiff.pages[0].tags["TileByteCounts"]
    offsets = tiff.pages[0].tags["TileOffsets"]
    tiff.close()
    with open(path, "r+b") as file:
        for tag in (counts, offsets):
            file.seek(tag.valueoffset)
            file.write(bytes(2 if tag.dtype == tifffile.DATATYPE.SHORT else 4))
    info = inspect(path)
    assert_equal_to_openslide(info, ((Box(0, 0, 256, 256), (256, 256)), (Box(100, 100, 64, 64), (32, 32))))
    with SlideReader(info) as reader:
        assert len({tuple(pixel) for pixel in reader.read(Box(0, 0, 128, 128), (128, 128)).reshape(-1, 3)}) == 1


@pytest.mark.parametrize("damage", ["overwritten", "cut short", "beyond the end of the file"])
def test_damage_is_reported_as_openslide_reports_it(tmp_path: Path, texture: NDArray[np.uint8], damage: str) -> None:
    path = write_own(tmp_path / "s.tif", texture, levels=2)
    with tifffile.TiffFile(path) as tiff:
        offset, count = tiff.pages[0].dataoffsets[1], tiff.pages[0].databytecounts[1]
        place_of_offset = tiff.pages[0].tags["TileOffsets"].valueoffset + 4
    content = bytearray(path.read_bytes())
    if damage == "overwritten":
        content[offset : offset + 64] = b"\x55" * 64
    elif damage == "cut short":
        content[offset + 2 * count // 3 : offset + 2 * count // 3 + 2] = b"\xff\xd9"
    else:
        content[place_of_offset : place_of_offset + 4] = (len(content) - 100).to_bytes(4, "little")
    path.write_bytes(content)
    info, box = inspect(path), Box(140, 10, 64, 64)
    messages = []
    for direct_too in (True, False):
        with (
            SlideReader(info, direct=direct_too) as reader,
            pytest.raises(SlideError, match=r"s\.tif: cannot read tile 7 \(level 0") as caught,
        ):
            reader.read(box, (64, 64), what="tile 7")
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_a_tile_that_ends_in_grey_is_checked_and_kept(tmp_path: Path) -> None:
    grey = np.full((256, 256, 3), 128, np.uint8)
    info = inspect(write_own(tmp_path / "s.tif", grey))
    assert_equal_to_openslide(info, ((Box(0, 0, 256, 256), (256, 256)),))


def test_other_compressions_and_formats_are_left_to_openslide(tmp_path: Path, texture: NDArray[np.uint8]) -> None:
    info = inspect(write_slide(tmp_path / "s.tif", texture))
    assert SlideReader(info)._direct == {}
    assert_equal_to_openslide(info)


def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    decoded: Counter[int] = Counter()
    original = JpegTiles.decode

    def decode(self: JpegTiles, file: int, index: int) -> NDArray[np.uint8]:
        decoded[index] += 1
        return original(self, file, index)

    monkeypatch.setattr(JpegTiles, "decode", decode)
    return decoded


def overlapping() -> list[Box]:
    return [Box(x, y, 200, 200) for y in range(0, 400, 150) for x in range(0, 600, 150)]


@pytest.mark.parametrize("threads", [1, 4])
def test_each_tile_is_decoded_once(
    tmp_path: Path, texture: NDArray[np.uint8], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = inspect(write_jpeg(tmp_path / "s.tif", texture))
    with SlideReader(info, direct=False) as reference:
        expected = [reference.read(box, (100, 100)) for box in overlapping()]
    decoded = counted(monkeypatch)
    with SlideReader(info) as reader:
        reader.expect(overlapping(), (100, 100))
        with ThreadPoolExecutor(threads) as pool:
            found = list(pool.map(lambda box: reader.read(box, (100, 100)), overlapping()))
        assert not reader._direct[0].kept
    assert (np.stack(found) == np.stack(expected)).all()
    assert decoded == dict.fromkeys(range(6 * 4), 1)


@pytest.mark.parametrize("bound", [0, 3])
def test_what_is_kept_is_bounded(
    tmp_path: Path, texture: NDArray[np.uint8], bound: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = inspect(write_jpeg(tmp_path / "s.tif", texture))
    decoded, most = counted(monkeypatch), []
    with SlideReader(info) as reader, SlideReader(info, direct=False) as reference, ThreadPoolExecutor(4) as pool:
        level = reader._direct[0]
        reader._direct[0] = JpegLevel(level._file, level._tiles, (255, 255, 255), bound * TILE * TILE * 4)

        def read(box: Box) -> NDArray[np.uint8]:
            most.append(len(reader._direct[0].kept))
            return reader.read(box, (100, 100))

        for _ in range(5):
            reader.expect(overlapping(), (100, 100))
            for box, found in zip(overlapping(), pool.map(read, overlapping()), strict=True):
                assert (found == reference.read(box, (100, 100))).all()
    assert max(most) <= bound
    assert max(decoded.values()) > 5


def test_two_threads_that_need_one_tile_decode_it_once(
    tmp_path: Path, texture: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    info = inspect(write_jpeg(tmp_path / "s.tif", texture))
    box, size = Box(10, 10, 64, 64), (64, 64)
    decoding, second_came = threading.Event(), threading.Event()
    calls = []

    def failing(self: JpegTiles, file: int, index: int) -> NDArray[np.uint8]:
        calls.append(index)
        decoding.set()
        assert second_came.wait(10)
        raise UndecodableError

    monkeypatch.setattr(JpegTiles, "decode", failing)
    with SlideReader(info) as reader, SlideReader(info, direct=False) as reference, ThreadPoolExecutor(2) as pool:
        reader.expect([box, box], size)
        first = pool.submit(reader.read, box, size)
        assert decoding.wait(10)
        second = pool.submit(reader.read, box, size)
        while reader._direct[0].awaited[0, 0]:
            pass
        second_came.set()
        expected = reference.read(box, size)
        assert (first.result() == expected).all()
        assert (second.result() == expected).all()
    assert calls == [0]


def test_pixels_go_straight_into_the_array_given(tmp_path: Path, texture: NDArray[np.uint8]) -> None:
    info = inspect(write_jpeg(tmp_path / "s.tif", texture))
    block = np.zeros((3, 64, 64, 3), np.uint8)
    with SlideReader(info) as reader:
        assert reader.read(Box(10, 20, 128, 128), (64, 64), out=block[1]) is not block
        assert (block[1] == reader.read(Box(10, 20, 128, 128), (64, 64))).all()
    assert not block[[0, 2]].any()


def test_the_tile_store_is_the_same_through_both_readers(
    tmp_path: Path, texture: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    info = inspect_slide(write_jpeg(tmp_path / "s.tif", texture), mpp=(0.24, 0.24))
    request = TileRequest(info, "a", SPEC, TileOptions(tissue_mpp=4, min_tissue_area=100))
    contents = []
    for name in ("direct", "openslide"):
        out = tmp_path / f"{name}.zarr"
        tile_slide(request, out)
        contents.append({p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()})
        monkeypatch.setattr("sampath_wsi.slides.reader.find_jpeg_tiles", lambda _: {})
    assert len(contents[0]) > 4
    assert contents[0] == contents[1]


def test_the_decoder_fills_missing_data_as_relied_on() -> None:
    """Missing data become grey to the last pixel, silently; should that change, the rule must change too."""
    rgb = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = imagecodecs.jpeg8_encode(rgb, level=90)
    found = imagecodecs.jpeg8_decode(data[: len(data) // 2] + b"\xff\xd9")
    assert (found[-1, -1] == 128).all()


def test_tiles_with_restarts_are_left_to_openslide(tmp_path: Path, texture: NDArray[np.uint8]) -> None:
    """After a restart the decoder goes on with what follows, so that lost data do not show at the end."""
    path = tmp_path / "tile.jpg"
    for options, is_plain in (({}, True), ({"restart_marker_rows": 1}, False)):
        Image.fromarray(texture[:64, :64]).save(path, **options)
        count = path.stat().st_size
        tiles = JpegTiles((64, 64), (64, 64), np.array([0]), np.array([count]), None, "YCBCR")
        with path.open("rb") as file, nullcontext() if is_plain else pytest.raises(UndecodableError):
            assert np.array_equal(tiles.decode(file.fileno(), 0)[..., :3], np.asarray(Image.open(path)))
