"""Resampling of a fractional rectangle of a pyramid level: planned without a pixel, then applied."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sampath_wsi.geometry import Box

# How far from whole pixels a rectangle may lie and still count as whole, in pixels of the level.
_WHOLE_PX = 1e-3


@dataclass(frozen=True)
class Resampling:
    """A window of a level to be read, in its own pixels, and how it is averaged or interpolated."""

    left_read_px: int
    top_read_px: int
    size_read_px: tuple[int, int]
    """(width, height) of the window to read; corner and size may reach beyond the level."""
    box_in_read_px: tuple[float, float, float, float]
    """Left, top, right and bottom of the wanted rectangle, relative to the corner of the window to read."""
    factors: tuple[int, int]
    """Pixels of the level in one of the result, (x, y), if both are whole and their grids coincide; else (0, 0)."""
    size_px: tuple[int, int]
    """(width, height) of the result."""

    @classmethod
    def plan(cls, exact: Box, size_px: tuple[int, int]) -> Resampling:
        """Plan the reading of ``exact``, in the level's own pixels, to be resampled to ``size_px`` (width, height)."""
        scales = exact.width / size_px[0], exact.height / size_px[1]
        factors = round(scales[0]), round(scales[1])
        corner = round(exact.x), round(exact.y)
        whole = (
            abs(scales[0] - factors[0]) * size_px[0] < _WHOLE_PX
            and abs(scales[1] - factors[1]) * size_px[1] < _WHOLE_PX
            and max(abs(exact.x - corner[0]), abs(exact.y - corner[1])) < _WHOLE_PX
        )
        if whole and min(factors) >= 1:
            size = factors[0] * size_px[0], factors[1] * size_px[1]
            return cls(*corner, size, (0, 0, *size), factors, size_px)
        # A margin, so that the filter finds neighbours also at the rectangle's edges.
        margin = math.ceil(max(*scales, 1.0)) + 1
        left, top = math.floor(exact.x) - margin, math.floor(exact.y) - margin
        size = math.ceil(exact.right) + margin - left, math.ceil(exact.bottom) + margin - top
        box = exact.x - left, exact.y - top, exact.right - left, exact.bottom - top
        return cls(left, top, size, box, (0, 0), size_px)

    def apply(self, rgbx: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
        """Resample the window that was read, ``(y, x, 4)`` with an unused fourth byte, into ``out (y, x, 3)``.

        Pillow works on pixels of four bytes: given them, it reads the array itself and copies nothing.
        """
        if self.factors != (1, 1):
            rgbx = np.asarray(self._shrunk(Image.frombuffer("RGBX", self.size_read_px, rgbx, "raw", "RGBX", 0, 1)))
        # One channel at a time: numpy copies rows of bytes much faster than triplets.
        for channel in range(3):
            out[..., channel] = rgbx[..., channel]

    def _shrunk(self, image: Image.Image) -> Image.Image:
        if self.factors != (0, 0):
            return image.reduce(self.factors)
        # Pillow's box filter gives every touched pixel the same weight; Hamming's tapers at the fractional edges.
        left, top, right, bottom = self.box_in_read_px
        shrinking = min((right - left) / self.size_px[0], (bottom - top) / self.size_px[1]) >= 1
        method = Image.Resampling.HAMMING if shrinking else Image.Resampling.BILINEAR
        return image.resize(self.size_px, method, box=self.box_in_read_px)
