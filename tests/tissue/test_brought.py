"""Masks that people bring are read by the values of their files, whatever the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from sampath_wsi.errors import AnnotationError
from sampath_wsi.geometry import Box
from sampath_wsi.tissue.brought import read_mask

SIZE = (1280, 1024)
TISSUE = np.zeros((256, 320), bool)
TISSUE[40:150, 60:246] = True
# The slide has 0.25 um/px, the mask a fourth of its resolution.
MM2 = TISSUE.sum() * (4 * 0.25) ** 2 / 1e6


def found_mm2(path: Path) -> float:
    found = read_mask(path, SIZE, Box(0, 0, *SIZE), TISSUE.shape)
    np.testing.assert_array_equal(found, TISSUE)
    return float((found >= 0.5).sum() * (4 * 0.25) ** 2 / 1e6)


def palette(white_background: bool) -> Image.Image:
    image = Image.fromarray(TISSUE.astype(np.uint8), "P")
    image.putpalette([255, 255, 255, 0, 0, 0] if white_background else [0, 0, 0, 255, 0, 0])
    return image


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(TISSUE),
        Image.fromarray(TISSUE.astype(np.uint8)),
        Image.fromarray(TISSUE.astype(np.uint8) * 255),
        Image.fromarray(TISSUE.astype(np.uint16) * 256),
        Image.fromarray(np.stack([TISSUE.astype(np.uint8) * 9] * 3, axis=2)),
        Image.fromarray(np.stack([TISSUE.astype(np.uint8) * 9] * 3 + [np.full_like(TISSUE, 255, np.uint8)], axis=2)),
        palette(white_background=True),
        palette(white_background=False),
    ],
    ids=["bool", "0/1", "0/255", "16 bit", "grey RGB", "opaque RGBA", "white palette", "black palette"],
)
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_pictures_give_the_same_tissue(tmp_path: Path, image: Image.Image, suffix: str) -> None:
    image.save(tmp_path / f"mask.{suffix}")
    assert found_mm2(tmp_path / f"mask.{suffix}") == MM2


@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint16", "uint32", "int16", "float16", "float32", "float64"])
@pytest.mark.parametrize("photometric", ["miniswhite", "minisblack"])
@pytest.mark.parametrize("more", [{}, {"compression": "deflate"}, {"bigtiff": True, "byteorder": ">"}])
def test_tiffs_give_the_same_tissue(tmp_path: Path, dtype: str, photometric: str, more: dict[str, Any]) -> None:
    path = tmp_path / "mask.png"  # the content decides, not the name
    tifffile.imwrite(path, TISSUE.astype(dtype), photometric=photometric, **more)
    assert found_mm2(path) == MM2


def test_planes_and_pyramids_of_one_mask(tmp_path: Path) -> None:
    path = tmp_path / "mask.tif"
    tifffile.imwrite(path, np.stack([TISSUE.astype(np.uint8)] * 3), photometric="rgb", planarconfig="separate")
    assert found_mm2(path) == MM2
    tifffile.imwrite(path, TISSUE[None, None].astype(np.uint8), ome=True, metadata={"axes": "ZCYX"})
    assert found_mm2(path) == MM2
    with tifffile.TiffWriter(path) as writer:
        writer.write(TISSUE.astype(np.uint8), subifds=1)
        writer.write(TISSUE[::2, ::2].astype(np.uint8), subfiletype=1)
    assert found_mm2(path) == MM2


def test_several_values_that_are_not_0_are_tissue(tmp_path: Path) -> None:
    values = TISSUE * np.arange(1, TISSUE.shape[1] + 1)
    tifffile.imwrite(tmp_path / "mask.tif", values.astype(np.float32) / 1000)
    assert found_mm2(tmp_path / "mask.tif") == MM2


def coloured(*shape: int) -> NDArray[np.uint8]:
    return np.arange(np.prod(shape), dtype=np.uint32).astype(np.uint8).reshape(shape)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.where(TISSUE, 1, np.nan).astype(np.float32), "negative or no numbers"),
        (TISSUE.astype(np.float32) - 1, "negative or no numbers"),
        (TISSUE.astype(np.int8) - 1, "negative or no numbers"),
        (TISSUE.astype(np.complex64), "negative or no numbers"),
        (coloured(256, 320, 3), "in colour or partly transparent, so it is ambiguous"),
        (coloured(256, 320, 4), "in colour or partly transparent, so it is ambiguous"),
        (coloured(2, 256, 320), "several pictures"),
    ],
)
def test_what_is_no_mask_is_refused(tmp_path: Path, values: NDArray[Any], message: str) -> None:
    colour = values.shape[-1] in (3, 4)
    tifffile.imwrite(tmp_path / "mask.tif", values, photometric="rgb" if colour else "minisblack")
    with pytest.raises(AnnotationError, match=message) as caught:
        found_mm2(tmp_path / "mask.tif")
    assert "mask.tif" in str(caught.value)
    if colour:
        Image.fromarray(values).save(tmp_path / "mask.png")
        with pytest.raises(AnnotationError, match=message):
            found_mm2(tmp_path / "mask.png")


def test_alpha_alone_is_ambiguous(tmp_path: Path) -> None:
    grey = np.stack([np.ones_like(TISSUE, np.uint8), TISSUE.astype(np.uint8) * 255], axis=2)
    Image.fromarray(grey, "LA").save(tmp_path / "mask.png")
    with pytest.raises(AnnotationError, match="ambiguous"):
        found_mm2(tmp_path / "mask.png")


@pytest.mark.parametrize("name", ["bool.tif", "pal_white_bg.png", "u8_1.png"])
def test_masks_met_in_use(name: str) -> None:
    path = Path(__file__).parents[2].parent / "shared" / "cases" / "tissue-masks" / name
    if not path.is_file():
        pytest.skip("the cases met in use are not here")
    found = read_mask(path, SIZE, Box(0, 0, *SIZE), (256, 320))
    assert round(float((found >= 0.5).mean()) * 1280 * 1024 * 0.25e-6, 4) == 0.0819
