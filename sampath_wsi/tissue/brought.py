"""Tissue masks and regions of interest that people bring, sampled like a detected mask.

``box_level0_px`` is the rectangle of the slide that a mask covers, ``shape`` its (rows, columns).
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from sampath_wsi.errors import AnnotationError
from sampath_wsi.geometry import Box
from sampath_wsi.slides import SlideInfo

# What Pillow refuses to decode, too: a gigabyte of memory, with what is made of it.
_MAX_VALUES = 179_000_000
_Values = NDArray[Any]


def read_mask(
    path: Path, slide_size_level0_px: tuple[int, int], box_level0_px: Box, shape: tuple[int, int]
) -> NDArray[np.float32]:
    """Read an image over the whole slide, of any size: the share of each pixel that is not zero, interpolated.

    Values are those of the file: the index of a palette, the stored value of a TIFF whose white is 0.

    Raises
    ------
    AnnotationError
        If it cannot be read, is in colour, has values that are no mask's, or not the proportions of the slide.
    """
    try:
        values = _read_tiff(path) if _is_tiff(path) else _read_picture(path)
    except AnnotationError:
        raise
    except Exception as error:  # The many decoders raise whatever they meet, and refuse what fills the memory.
        raise AnnotationError(
            f"{path}: this tissue mask cannot be read: {error}", "Give a PNG or TIFF image."
        ) from error
    numbers = _single_channel(path, values)
    if not values.size:
        raise AnnotationError(f"{path}: this tissue mask has no pixels", "Give a PNG or TIFF image.")
    # NaN is neither above nor below 0.
    if numbers.dtype.kind not in "biuf" or not bool((numbers >= 0).all()):
        raise AnnotationError(
            f"{path}: this tissue mask has values that are negative or no numbers", "Give 0 where there is no tissue."
        )
    mask = Image.fromarray((numbers > 0).astype(np.float32))
    width, height = slide_size_level0_px
    if not 0.95 < (mask.width / mask.height) / (width / height) < 1.05:
        raise AnnotationError(
            f"{path}: a tissue mask of {mask.width} x {mask.height} px does not have the proportions of its slide "
            f"({width} x {height} px)",
            "Give a mask of the whole slide.",
        )
    scale_x, scale_y = mask.width / width, mask.height / height
    box = (
        box_level0_px.x * scale_x,
        box_level0_px.y * scale_y,
        min(box_level0_px.right * scale_x, mask.width),
        min(box_level0_px.bottom * scale_y, mask.height),
    )
    return np.asarray(mask.resize((shape[1], shape[0]), Image.Resampling.BILINEAR, box=box), np.float32)


def _is_tiff(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def _read_tiff(path: Path) -> _Values:
    """Return the stored values ``(y, x)`` or ``(y, x, channel)`` of the first image of a TIFF.

    Pillow shows bilevel and grey TIFFs whose white is 0 inverted, and knows fewer types of numbers.
    """
    with tifffile.TiffFile(path) as tiff:
        series = tiff.series[0]
        if math.prod(series.shape) > _MAX_VALUES:
            raise AnnotationError(f"{path}: a tissue mask of {series.shape} values", "Give a smaller one.")
        axes, values = series.axes, series.asarray()
    for axis in range(values.ndim - 1, -1, -1):
        if values.shape[axis] == 1 and axes[axis] not in "YX":
            values, axes = values.squeeze(axis), axes[:axis] + axes[axis + 1 :]
    if axes in ("SYX", "CYX"):
        values, axes = np.moveaxis(values, 0, -1), "YXS"
    if axes not in ("YX", "YXS"):
        raise AnnotationError(
            f"{path}: this tissue mask holds several pictures ({' x '.join(map(str, series.shape))})", "Give one alone."
        )
    return np.asarray(values)


def _read_picture(path: Path) -> _Values:
    """Return the values ``(y, x)`` or ``(y, x, channel)`` of any other picture; of a palette, the indices."""
    with warnings.catch_warnings(), Image.open(path) as image:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return np.asarray(image)


def _single_channel(path: Path, values: _Values) -> _Values:
    """Return the values ``(y, x)`` of a picture that has one channel, or several that agree; alpha may be opaque only.

    Raises
    ------
    AnnotationError
        If it is not told which colours, or which of its transparency, are tissue.
    """
    if values.ndim == 2:
        return values
    colours = values.shape[2] - (values.shape[2] in (2, 4))
    grey = colours in (1, 3) and all((values[..., 0] == values[..., k]).all() for k in range(1, colours))
    alpha = values[..., colours:]
    if not grey or (alpha.size and (alpha != alpha.flat[0]).any()):
        raise AnnotationError(
            f"{path}: this tissue mask is in colour or partly transparent, so it is ambiguous what is tissue",
            "Give one channel that is 0 where there is no tissue.",
        )
    return values[..., 0]


def rasterize_rois(
    path: Path,
    slide: SlideInfo,
    corner_level0_px: tuple[float, float],
    px_level0_px: tuple[float, float],
    shape: tuple[int, int],
) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Return the share of each pixel that QuPath annotations say to look at, from four by four samples, and warnings.

    Parameters
    ----------
    path
        GeoJSON, in QuPath's frame, by the rules of :mod:`sampath_wsi.qupath.drawing`.
    corner_level0_px
        The corner (x, y) of the mask.
    px_level0_px
        Level-0 pixels in one of the mask's, (x, y).

    Raises
    ------
    AnnotationError
        If the annotations cannot be read, or none of them is an area on the slide.
    """
    from rasterio import features
    from rasterio.transform import Affine

    from sampath_wsi.qupath.drawing import read_drawing

    drawing = read_drawing(path, slide)
    wanted, taken_away = drawing.roi(slide)
    fine = Affine(px_level0_px[0] / 4, 0, corner_level0_px[0], 0, px_level0_px[1] / 4, corner_level0_px[1])
    # What is burnt later is on top.
    shapes = [(area, 1) for area in wanted] + [(area, 0) for area in taken_away]
    burnt = features.rasterize(shapes, out_shape=(shape[0] * 4, shape[1] * 4), transform=fine, dtype=np.uint8)
    share: NDArray[np.float32] = burnt.reshape(shape[0], 4, shape[1], 4).mean(axis=(1, 3), dtype=np.float32)
    return share, drawing.warnings
