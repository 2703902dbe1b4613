"""Tissue masks and regions of interest that people bring, sampled like a detected mask.

``box_level0_px`` is the rectangle of the slide that a mask covers, ``shape`` its (rows, columns).
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sampath_wsi.errors import AnnotationError
from sampath_wsi.geometry import Box


def read_mask(
    path: Path, slide_size_level0_px: tuple[int, int], box_level0_px: Box, shape: tuple[int, int]
) -> NDArray[np.float32]:
    """Read an image over the whole slide, of any size: the share of each pixel that is not zero, interpolated.

    Raises
    ------
    AnnotationError
        If it cannot be read, or does not have the proportions of the slide.
    """
    try:
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            mask = Image.fromarray((np.asarray(image.convert("L")) > 0).astype(np.float32))
    except Exception as error:  # Pillow's many decoders raise whatever they meet, and refuse what fills the memory.
        raise AnnotationError(
            f"{path}: this tissue mask cannot be read: {error}", "Give a PNG or TIFF image."
        ) from error
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


def rasterize_rois(
    path: Path,
    corner_level0_px: tuple[float, float],
    px_level0_px: tuple[float, float],
    shape: tuple[int, int],
) -> NDArray[np.float32]:
    """Return the share of each pixel that lies in the areas of QuPath annotations, from four by four samples.

    Parameters
    ----------
    path
        GeoJSON, in QuPath's frame.
    corner_level0_px
        The corner (x, y) of the mask in that frame.
    px_level0_px
        Level-0 pixels in one of the mask's, (x, y).

    Raises
    ------
    AnnotationError
        If the annotations cannot be read, or none of them has an area.
    """
    from rasterio import features
    from rasterio.transform import Affine

    from sampath_wsi.qupath import read_annotations

    areas = [a.geometry for a in read_annotations(path) if a.geometry.area > 0]
    if not areas:
        raise AnnotationError(f"{path}: none of its annotations has an area", "Draw a closed region in QuPath.")
    fine = Affine(px_level0_px[0] / 4, 0, corner_level0_px[0], 0, px_level0_px[1] / 4, corner_level0_px[1])
    burnt = features.rasterize(areas, out_shape=(shape[0] * 4, shape[1] * 4), transform=fine, dtype=np.uint8)
    share: NDArray[np.float32] = burnt.reshape(shape[0], 4, shape[1], 4).mean(axis=(1, 3), dtype=np.float32)
    return share
