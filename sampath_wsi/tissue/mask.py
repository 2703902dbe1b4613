"""Where the tissue is, at low resolution.

The mask is soft: a value of 0.5 or more is tissue, and values between neighbouring pixels interpolate linearly, so that
the outline is smooth also when it is looked up at a much finer resolution.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from sampath_wsi.errors import AnnotationError, SlideError
from sampath_wsi.geometry import Box, TileGrid
from sampath_wsi.progress import Progress
from sampath_wsi.slides import SlideInfo, SlideReader

# The weakest and the strongest darkening (relative to the glass) at which tissue may begin: Otsu's threshold is kept
# between them, so that neither a blank slide turns into tissue nor dark tissue hides pale tissue beside it.
_THRESHOLD_RANGE = (0.04, 0.07)
_GLASS_AT_LEAST = 200
# Glass has hardly any colour: it is told from pale stroma by how far its channels may lie apart, in grey values.
_GLASS_COLOUR_AT_MOST = 20
# Pale tissue is told from glass by its texture, in shares of the glass's brightness: how far pixels lie from the mean
# of their surroundings. Glass has 0.002 to 0.003 in the slides that were looked at, mucin 0.01 to 0.03.
_TEXTURE_PX = 2.0
_TEXTURE_AT_LEAST = 0.009
_TEXTURE_TIMES_NOISE = 4.0
# 150 mm x 100 mm at 8 um/px, some GB of memory.
_MAX_MASK_PX = 1 << 28


@dataclass(frozen=True)
class TissueOptions:
    """How tissue is found.

    ``mpp`` is the resolution of the mask; islands smaller than ``min_area_um2`` are dropped, holes smaller than
    ``min_hole_um2`` filled. With ``detect`` off, everything is tissue.
    """

    detect: bool = True
    mpp: float = 8.0
    min_area_um2: float = 5_000.0
    min_hole_um2: float = 5_000.0


@dataclass(frozen=True)
class TissueMask:
    """A soft mask over the region of a grid: ``values (y, x)`` in [0, 1], one value every ``px_level0_px`` (x, y).

    ``brightness`` is the median of the brightest channel, where the slide was looked at.
    """

    values: NDArray[np.float32]
    px_level0_px: tuple[float, float]
    brightness: float | None = None

    def share(self, grid: TileGrid, tile: int) -> float:
        """The share of a tile that is tissue."""
        box = grid.tile_box_level0_px(tile)
        x0 = (box.x - grid.region_x_level0_px) / self.px_level0_px[0]
        y0 = (box.y - grid.region_y_level0_px) / self.px_level0_px[1]
        x1, y1 = x0 + box.width / self.px_level0_px[0], y0 + box.height / self.px_level0_px[1]
        part = self.values[math.floor(y0) : math.ceil(y1), math.floor(x0) : math.ceil(x1)]
        return float((part >= 0.5).mean()) if part.size else 0.0

    def tiles(self, grid: TileGrid, min_share: float) -> list[int]:
        """The tiles of which more than ``min_share`` is tissue."""
        return [tile for tile in grid.tiles if self.share(grid, tile) > min_share]


def find_tissue(
    reader: SlideReader,
    grid: TileGrid,
    options: TissueOptions,
    *,
    mask_path: Path | None = None,
    region_path: Path | None = None,
    threads: int = 1,
    progress: Progress | None = None,
) -> TissueMask:
    """Find the tissue in the region of a grid, reading the slide in bounded pieces, ``threads`` of them at once.

    Parameters
    ----------
    mask_path
        An image over the whole slide, of any size, to use in place of detection: not zero is tissue.
    region_path
        QuPath annotations (GeoJSON, in QuPath's frame): only what lies in their areas counts as tissue.

    Raises
    ------
    SlideError
        If the slide cannot be read.
    AnnotationError
        If a mask or region cannot be used.
    """
    px_level0_px = options.mpp / grid.mpp_x, options.mpp / grid.mpp_y
    shape = (
        max(1, math.ceil(grid.region_height_level0_px / px_level0_px[1])),
        max(1, math.ceil(grid.region_width_level0_px / px_level0_px[0])),
    )
    if shape[0] * shape[1] > _MAX_MASK_PX:
        raise SlideError(
            f"{reader.info.path}: a tissue mask at {options.mpp:g} um/px would have {shape[1]} x {shape[0]} px",
            "Check the slide's resolution, or set a coarser one for the mask (tile.tissue_mpp, --tissue-mpp).",
        )
    brightness = None
    if mask_path is not None:
        values = _read_mask(mask_path, reader.info, grid, px_level0_px, shape)
    elif options.detect:
        region = Box(
            grid.region_x_level0_px,
            grid.region_y_level0_px,
            shape[1] * px_level0_px[0],
            shape[0] * px_level0_px[1],
        )
        picture = reader.overview(region, (shape[1], shape[0]), threads=threads, progress=progress)
        values = soft_mask(picture, options)
        brightness = float(np.median(picture.max(axis=2)))
    else:
        values = np.ones(shape, np.float32)
    if region_path is not None:
        values = values * _rasterize(region_path, reader.info.qupath_offset_level0_px, grid, px_level0_px, shape)
    return TissueMask(values.astype(np.float32), px_level0_px, brightness)


def soft_mask(rgb: NDArray[np.uint8], options: TissueOptions) -> NDArray[np.float32]:
    """A soft tissue mask of a low-resolution picture ``(y, x, 3)``: 0.5 where tissue begins.

    A pixel counts by how much darker than the glass its darkest channel is (stain darkens at least one, pale eosin
    included), smoothed a little; the threshold is Otsu's, kept within bounds. What is as pale as glass (mucin, fat)
    counts by its texture, which glass does not have. Along the glass the outline lies where half of the neighbouring
    darkness is reached: there a pixel is dark in the measure that tissue covers it, and a low threshold alone would
    draw the outline of dark tissue too wide.
    """
    darkening = _darkening(rgb)
    score = ndimage.gaussian_filter(darkening, 0.7, mode="nearest")
    threshold = float(np.clip(_otsu(score), *_THRESHOLD_RANGE))
    dark = score >= threshold
    texture = _texture(darkening, dark)
    # Lines and specks are no tissue: the seams between a scanner's stripes, scratches.
    textured = ndimage.binary_opening((texture >= 0.5) | dark, iterations=2) & ~dark
    found = dark | textured
    kept = _without_small(found, options.min_area_um2 / options.mpp**2)
    filled = kept | _enclosed(~kept, options.min_hole_um2 / options.mpp**2)
    rim = filled & ndimage.binary_dilation(~filled, iterations=2)
    begins = np.where(rim, np.maximum(threshold, ndimage.maximum_filter(score, 3) / 2), threshold)
    soft = np.clip(score / (2 * begins), 0.0, 1.0)
    # Glass keeps below one half also where the score rises towards an island that was dropped.
    either = np.maximum(soft, texture)
    soft = np.where(filled, np.where(rim & ~textured, soft, np.maximum(either, 0.5)), np.minimum(either, 0.499))
    soft[filled & ~kept] = 1.0
    soft[found & ~kept] = 0.0
    result: NDArray[np.float32] = soft.astype(np.float32)
    return result


def _darkening(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """How much darker than the glass the darkest channel is, from 0 to 1."""
    darkening = np.zeros(rgb.shape[:2], np.float32)
    for channel, glass in enumerate(_glass(rgb)):
        np.maximum(darkening, 1.0 - rgb[..., channel] / glass, out=darkening)
    return darkening


def _texture(darkening: NDArray[np.float32], dark: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Texture of the pale pixels, from 0 to 1: from 0.5 on it is more than glass has.

    Dark pixels take no part in it, nor do their neighbours, which they partly cover. It is the mean distance from the
    mean, not its square, so that a grain of dust is no texture. On a noisy slide the limit rises with the noise, which
    is what the smoothest of the pale pixels have.
    """
    pale = ~ndimage.binary_dilation(dark)
    if not pale.any():
        return np.zeros_like(darkening)
    weight = pale.astype(np.float32)
    near: NDArray[np.float32] = ndimage.gaussian_filter(weight, _TEXTURE_PX, mode="nearest")

    def mean(values: NDArray[np.float32]) -> NDArray[np.float32]:
        smooth: NDArray[np.float32] = ndimage.gaussian_filter(values * weight, _TEXTURE_PX, mode="nearest")
        smooth /= np.maximum(near, np.float32(1e-6))
        return smooth

    texture = mean(np.abs(darkening - mean(darkening)))
    texture[near < 0.02] = 0
    limit = max(_TEXTURE_AT_LEAST, _TEXTURE_TIMES_NOISE * float(np.percentile(texture[pale], 5)))
    return (texture / (2 * limit)).clip(0, 1)


def _glass(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The colour of empty glass: the commonest of the bright pixels without colour.

    If there are none, of all bright pixels; white if there are none of these either.
    """
    least = rgb.min(axis=2)
    few = max(16, least.size // 1000)
    bright = least >= _GLASS_AT_LEAST
    if bright.sum() < few:
        return np.full(3, 255, np.float32)
    grey = bright & (rgb.max(axis=2) - least <= _GLASS_COLOUR_AT_MOST)
    candidates = rgb[grey if grey.sum() >= few else bright]
    least = candidates.min(axis=1)
    mode = int(np.bincount(least).argmax())
    near = (least >= mode - 2) & (least <= mode + 2)
    colour: NDArray[np.float32] = np.median(candidates[near], axis=0).astype(np.float32)
    return colour


def _otsu(score: NDArray[np.float32]) -> float:
    """Otsu's threshold (1979): the value that best separates a histogram into two classes."""
    counts, edges = np.histogram(score, bins=256, range=(0.0, 1.0))
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * centres)
    with np.errstate(invalid="ignore", divide="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(centres[np.nan_to_num(between).argmax()])


def _enclosed(glass: NDArray[np.bool_], below_px: float) -> NDArray[np.bool_]:
    """The small holes: parts of the glass below a size that do not reach the edge of the picture."""
    labels, count = ndimage.label(glass)
    small = np.bincount(labels.ravel(), minlength=count + 1) < below_px
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    small[edge] = small[0] = False
    holes: NDArray[np.bool_] = small[labels]
    return holes


def _without_small(mask: NDArray[np.bool_], min_px: float) -> NDArray[np.bool_]:
    labels, count = ndimage.label(mask)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    keep = sizes >= min_px
    keep[0] = False
    kept: NDArray[np.bool_] = keep[labels]
    return kept


def _read_mask(
    path: Path, info: SlideInfo, grid: TileGrid, px_level0_px: tuple[float, float], shape: tuple[int, int]
) -> NDArray[np.float32]:
    try:
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            mask = Image.fromarray((np.asarray(image.convert("L")) > 0).astype(np.float32))
    except Exception as error:  # Pillow's many decoders raise whatever they meet, and refuse what fills the memory.
        raise AnnotationError(
            f"{path}: this tissue mask cannot be read: {error}", "Give a PNG or TIFF image."
        ) from error
    ratio = (mask.width / mask.height) / (info.size_level0_px[0] / info.size_level0_px[1])
    if not 0.95 < ratio < 1.05:
        raise AnnotationError(
            f"{path}: a tissue mask of {mask.width} x {mask.height} px does not have the proportions of its slide "
            f"({info.size_level0_px[0]} x {info.size_level0_px[1]} px)",
            "Give a mask of the whole slide.",
        )
    scale_x, scale_y = mask.width / info.size_level0_px[0], mask.height / info.size_level0_px[1]
    right = grid.region_x_level0_px + shape[1] * px_level0_px[0]
    bottom = grid.region_y_level0_px + shape[0] * px_level0_px[1]
    box = (
        grid.region_x_level0_px * scale_x,
        grid.region_y_level0_px * scale_y,
        min(right * scale_x, mask.width),
        min(bottom * scale_y, mask.height),
    )
    return np.asarray(mask.resize((shape[1], shape[0]), Image.Resampling.BILINEAR, box=box), np.float32)


def _rasterize(
    path: Path,
    qupath_offset_level0_px: tuple[int, int],
    grid: TileGrid,
    px_level0_px: tuple[float, float],
    shape: tuple[int, int],
) -> NDArray[np.float32]:
    from rasterio import features
    from rasterio.transform import Affine

    from sampath_wsi.qupath import read_annotations

    areas = [a.geometry for a in read_annotations(path) if a.geometry.area > 0]
    if not areas:
        raise AnnotationError(f"{path}: none of its annotations has an area", "Draw a closed region in QuPath.")
    # Four by four samples a pixel, averaged: the region's outline stays soft like the tissue's.
    left = grid.region_x_level0_px - qupath_offset_level0_px[0]
    top = grid.region_y_level0_px - qupath_offset_level0_px[1]
    fine = Affine(px_level0_px[0] / 4, 0, left, 0, px_level0_px[1] / 4, top)
    burnt = features.rasterize(areas, out_shape=(shape[0] * 4, shape[1] * 4), transform=fine, dtype=np.uint8)
    share: NDArray[np.float32] = burnt.reshape(shape[0], 4, shape[1], 4).mean(axis=(1, 3), dtype=np.float32)
    return share
