"""Finds tissue in a low-resolution picture of a slide."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

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


@dataclass(frozen=True)
class TissueOptions:
    """Options of tissue detection.

    ``mpp`` is the resolution of the mask; islands smaller than ``min_area_um2`` are dropped, holes smaller than
    ``min_hole_um2`` filled. With ``detect`` off, everything is tissue.
    """

    detect: bool = True
    mpp: float = 8.0
    min_area_um2: float = 5_000.0
    min_hole_um2: float = 5_000.0


def soft_mask(rgb: NDArray[np.uint8], options: TissueOptions) -> NDArray[np.float32]:
    """Return the soft tissue mask of a low-resolution picture ``(y, x, 3)``: 0.5 where tissue begins.

    A pixel counts by how much darker than the glass its darkest channel is (stain darkens at least one, pale eosin
    included), smoothed a little; the threshold is Otsu's, kept within bounds. Tissue as pale as glass (mucin, fat)
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
    """Return how much darker than the glass the darkest channel is, from 0 to 1."""
    darkening = np.zeros(rgb.shape[:2], np.float32)
    for channel, glass in enumerate(_glass(rgb)):
        np.maximum(darkening, 1.0 - rgb[..., channel] / glass, out=darkening)
    return darkening


def _texture(darkening: NDArray[np.float32], dark: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the texture of the pale pixels, from 0 to 1: from 0.5 on it is more than glass has.

    Dark pixels take no part in it, nor do their neighbours, which they partly cover. It is the mean distance from the
    mean, not its square, so that a grain of dust is no texture. On a noisy slide the limit rises with the noise,
    which is measured on the smoothest of the pale pixels.
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
    """Return the colour of empty glass: the commonest of the bright pixels without colour.

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
    """Return Otsu's threshold (1979): the value that best separates a histogram into two classes."""
    counts, edges = np.histogram(score, bins=256, range=(0.0, 1.0))
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * centres)
    with np.errstate(invalid="ignore", divide="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(centres[np.nan_to_num(between).argmax()])


def _enclosed(glass: NDArray[np.bool_], below_px: float) -> NDArray[np.bool_]:
    """Return the small holes: connected glass below a size that does not reach the edge of the picture."""
    labels, sizes = _components(glass)
    small = sizes < below_px
    small[np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])] = small[0] = False
    holes: NDArray[np.bool_] = small[labels]
    return holes


def _without_small(mask: NDArray[np.bool_], min_px: float) -> NDArray[np.bool_]:
    labels, sizes = _components(mask)
    keep = sizes >= min_px
    keep[0] = False
    kept: NDArray[np.bool_] = keep[labels]
    return kept


def _components(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return the number of each pixel's connected region, 0 outside, and the sizes of the regions in pixels."""
    labels, count = ndimage.label(mask)
    return labels, np.bincount(labels.ravel(), minlength=count + 1)
