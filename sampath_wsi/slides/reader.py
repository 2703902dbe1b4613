"""Windows of a slide at any resolution.

OpenSlide reads any slide. Levels that are plain JPEG tiles in a TIFF are decoded directly, which gives the same pixels
several times faster; whatever is unusual there (a missing tile, a damaged one) is left to OpenSlide and its messages.
Transparent pixels and pixels outside the slide become the slide's background.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from sampath_wsi.geometry import Box
from sampath_wsi.progress import Progress, stepper
from sampath_wsi.slides.info import SlideInfo
from sampath_wsi.slides.jpeg import JpegLevel, UndecodableError, find_jpeg_tiles
from sampath_wsi.slides.openslide_levels import OpenSlideLevels
from sampath_wsi.slides.resampling import Resampling

_OVERVIEW_READ_PX = 2048
# More pixels of a level (512 MB) are read in parts: a model of low resolution on a slide that has a single level, or
# a resolution that is wrong.
_MAX_READ_PX = 1 << 27


class SlideReader:
    """Windows of a slide at any resolution; safe to share between threads. Close it, or use it in ``with``."""

    def __init__(self, info: SlideInfo, *, direct: bool = True) -> None:
        """Read a slide; with ``direct`` off, through OpenSlide alone."""
        self.info = info
        self._openslide = OpenSlideLevels(info)
        self._file: int | None = None
        self._direct: dict[int, JpegLevel] = {}
        if direct and (levels := find_jpeg_tiles(info)):
            self._file = os.open(info.path, os.O_RDONLY)
            self._direct = {k: JpegLevel(self._file, tiles, info.background) for k, tiles in levels.items()}

    @property
    def direct_levels(self) -> frozenset[int]:
        """Return the levels that are decoded here; all others OpenSlide reads."""
        return frozenset(self._direct)

    def __enter__(self) -> SlideReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def expect(self, boxes_level0_px: Iterable[Box], size_px: tuple[int, int]) -> None:
        """Announce rectangles that will be read, each once and at one size: tiles that they share are decoded once."""
        for box in boxes_level0_px:
            level, plan = self._plan(box, size_px)
            if level in self._direct and math.prod(plan.size_read_px) <= _MAX_READ_PX:
                self._direct[level].expect(plan.left_read_px, plan.top_read_px, plan.size_read_px)

    def read(
        self,
        box_level0_px: Box,
        size_px: tuple[int, int],
        *,
        what: str = "a region",
        out: NDArray[np.uint8] | None = None,
    ) -> NDArray[np.uint8]:
        """Read a rectangle and resample it to ``size_px`` (width, height).

        The best level that is at least as fine as wanted is read; finer pixels are averaged over their area,
        coarser ones interpolated.

        Parameters
        ----------
        box_level0_px
            The rectangle; corners may be fractional and may lie outside the slide.
        what
            Names the rectangle in an error ("tile 17").
        out
            Where to put the pixels; a new array if not given.

        Returns
        -------
        ``(height, width, 3)`` uint8, RGB: ``out``, if given.

        Raises
        ------
        SlideError
            If reading fails twice, the second time with a fresh handle.
        """
        level, plan = self._plan(box_level0_px, size_px)
        out = np.empty((size_px[1], size_px[0], 3), np.uint8) if out is None else out
        parts = list(self._parts(box_level0_px, out)) if math.prod(plan.size_read_px) > _MAX_READ_PX else []
        if len(parts) > 1:
            for box, part in parts:
                self.read(box, (part.shape[1], part.shape[0]), what=what, out=part)
        else:
            plan.apply(self._read_level(level, plan, what), out)
        return out

    def overview(
        self, box_level0_px: Box, size_px: tuple[int, int], *, threads: int = 1, progress: Progress | None = None
    ) -> NDArray[np.uint8]:
        """Read a large rectangle at low resolution, in parts of bounded size (some slides have a single level).

        Returns
        -------
        ``(height, width, 3)`` uint8, RGB.
        """
        whole = np.empty((size_px[1], size_px[0], 3), np.uint8)
        parts = list(self._parts(box_level0_px, whole))
        for box, part in parts:
            self.expect([box], (part.shape[1], part.shape[0]))

        def read(box: Box, part: NDArray[np.uint8]) -> None:
            self.read(box, (part.shape[1], part.shape[0]), what="the overview", out=part)

        step = stepper(progress, len(parts), "parts of the overview")
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(read, *zip(*parts, strict=True)):
                step()
        return whole

    def _parts(self, box: Box, whole: NDArray[np.uint8]) -> Iterator[tuple[Box, NDArray[np.uint8]]]:
        """Cut a rectangle of level 0 and the array for it into parts whose reading takes little memory."""
        height, width = whole.shape[:2]
        scale_x, scale_y = box.width / width, box.height / height
        downsample = self.info.downsamples[self.level_for(min(scale_x, scale_y))]
        size = max(8, int(_OVERVIEW_READ_PX * downsample / max(scale_x, scale_y)))
        for top in range(0, height, size):
            for left in range(0, width, size):
                part = whole[top : top + size, left : left + size]
                x, y = box.x + left * scale_x, box.y + top * scale_y
                yield Box(x, y, part.shape[1] * scale_x, part.shape[0] * scale_y), part

    def close(self) -> None:
        """Close everything; no thread may be reading. A reader that is used again opens OpenSlide again."""
        self._direct.clear()
        if self._file is not None:
            os.close(self._file)
            self._file = None
        self._openslide.close()

    def _plan(self, box_level0_px: Box, size_px: tuple[int, int]) -> tuple[int, Resampling]:
        level = self.level_for(min(box_level0_px.width / size_px[0], box_level0_px.height / size_px[1]))
        return level, Resampling.plan(box_level0_px.scaled(1 / self.info.downsamples[level]), size_px)

    def level_for(self, wanted_downsample: float) -> int:
        """Return the level that is read for a resolution, given in level-0 pixels a pixel."""
        # A thousandth of tolerance: downsamples such as 4.0003 (odd level sizes) still serve a wanted 4.
        fitting = [i for i, d in enumerate(self.info.downsamples) if d <= wanted_downsample * 1.001]
        return max(fitting, key=lambda i: self.info.downsamples[i], default=0)

    def _read_level(self, level: int, plan: Resampling, what: str) -> NDArray[np.uint8]:
        """Read the window of a level that a plan names: ``(y, x, 4)``, RGB and an unused byte."""
        window = plan.left_read_px, plan.top_read_px, plan.size_read_px
        if level in self._direct:
            try:
                return self._direct[level].read(*window)
            except UndecodableError:
                pass
        return self._openslide.read(level, *window, what)
