"""Pictures and masks of every kind: read rightly, or refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from sampath_wsi.errors import DataError
from sampath_wsi.training.data.pictures import read_codes, read_rgb
from sampath_wsi.training.data.prepare.masks import prepare_masks
from sampath_wsi.training.data.prepared import read_prepared

from .prepare_helpers import make_glas_archive, save

RGB = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
ALPHA = np.full((20, 30), 255, np.uint8)
ALPHA[:5], ALPHA[5:8] = 0, 51


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_transparent_pixels_are_white(tmp_path: Path, suffix: str) -> None:
    found = read_rgb(save(np.dstack([RGB, ALPHA]), tmp_path / f"a{suffix}"))
    assert (found[:5] == 255).all()
    assert np.abs(found[5:8] - (0.2 * RGB[5:8] + 0.8 * 255)).max() <= 1
    np.testing.assert_array_equal(found[8:], RGB[8:])


def test_grey_and_palette(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_rgb(save(RGB[..., 0], tmp_path / "l.png")), RGB[..., [0, 0, 0]])
    picture = Image.fromarray(RGB[..., 1] // 64)
    colours = np.array([(250, 1, 2), (3, 240, 4), (5, 6, 230), (90, 80, 70)], np.uint8)
    picture.putpalette(colours.ravel().tolist())
    picture.save(tmp_path / "p.png")
    np.testing.assert_array_equal(read_rgb(tmp_path / "p.png"), colours[RGB[..., 1] // 64])
    picture.save(tmp_path / "t.png", transparency=2)
    colours[2] = 255
    np.testing.assert_array_equal(read_rgb(tmp_path / "t.png"), colours[RGB[..., 1] // 64])


def test_pictures_that_need_a_guess_are_refused(tmp_path: Path) -> None:
    def refused(name: str, message: str) -> None:
        with pytest.raises(DataError, match=rf"{name}: {message}"):
            read_rgb(tmp_path / name)

    save(RGB[..., 0].astype(np.uint16) * 257, tmp_path / "grey.png")
    refused("grey.png", "a picture of more than 8 bits a channel. Convert it to RGB")
    tifffile.imwrite(tmp_path / "rgb.tif", RGB.astype(np.uint16) * 16, photometric="rgb")
    refused("rgb.tif", "a picture of more than 8 bits")
    save(RGB[..., 0].astype(np.float32), tmp_path / "float.tif")
    refused("float.tif", "a picture of more than 8 bits")
    Image.fromarray(RGB).convert("CMYK").save(tmp_path / "inks.jpg")
    refused("inks.jpg", "a picture with the mode CMYK")


@pytest.mark.parametrize("orientation", [3, 6])
def test_pictures_to_be_turned_are_refused(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    for name in ("a.jpg", "a.png", "a.tif"):
        Image.fromarray(RGB).save(tmp_path / name, exif=exif)
        with pytest.raises(DataError, match=rf"{name}: is to be turned or mirrored \(EXIF orientation {orientation}\)"):
            read_rgb(tmp_path / name)
    exif[274] = 1
    Image.fromarray(RGB).save(tmp_path / "b.png", exif=exif)
    np.testing.assert_array_equal(read_rgb(tmp_path / "b.png"), RGB)


def test_masks_that_do_not_hold_their_codes_are_refused(tmp_path: Path) -> None:
    codes = RGB[..., 0] // 64
    with pytest.raises(DataError, match=r"a\.jpg: a mask in JPEG, which changes codes"):
        read_codes(save(codes, tmp_path / "a.jpg"))
    tifffile.imwrite(tmp_path / "white.tif", codes, photometric="miniswhite")
    with pytest.raises(DataError, match=r"white\.tif: a mask whose white is 0"):
        read_codes(tmp_path / "white.tif")
    for name in ("a.png", "a.tif", "a.bmp"):
        np.testing.assert_array_equal(read_codes(save(codes, tmp_path / name)), codes)
    deep = codes.astype(np.uint16) * 1000
    np.testing.assert_array_equal(read_codes(save(deep, tmp_path / "deep.png")), deep)


def test_binary_masks_become_their_regions_with_a_warning(tmp_path: Path) -> None:
    source = make_glas_archive(tmp_path / "glas")
    mask = np.zeros((40, 48), np.uint8)
    mask[2:10, 3:20] = mask[15:30, 5:25] = mask[30:35, 25:40] = 255  # the last two touch by a corner
    for name in ("train_1", "testA_1"):
        save(mask, source / f"{name}_anno.bmp")
    single = np.zeros_like(mask)
    single[4:9, 4:9] = 1
    save(single, source / "testB_1_anno.bmp")
    summary = prepare_masks("glas", source, tmp_path / "out")
    warning = next(text for text in summary.warnings if "instances" in text)
    assert warning.startswith("2 masks do not tell instances apart, the first is ")
    data = read_prepared(tmp_path / "out")
    for split, expected in (("train", 2), ("testB", 1)):
        (sample,) = data.split(split)
        instances = data.read_instances(sample)
        assert sorted(np.unique(instances)) == list(range(expected + 1))
        np.testing.assert_array_equal(data.read(sample)[1], np.where(instances > 0, 2, 1))
    (sample,) = data.split("train")
    instances = data.read_instances(sample)
    assert instances[5, 5] != instances[20, 20] == instances[32, 30]


def test_sizes_that_differ_by_a_pixel_are_said(tmp_path: Path) -> None:
    source = make_glas_archive(tmp_path / "glas")
    save(np.ones((40, 47), np.uint8), source / "train_1_anno.bmp")
    with pytest.raises(DataError, match=r"train_1_anno\.bmp: the mask is 47 x 40 px, its image 48 x 40 px"):
        prepare_masks("glas", source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
