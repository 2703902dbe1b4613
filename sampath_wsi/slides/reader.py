"""Regions of a slide at any resolution.

OpenSlide reads any slide. Levels that are plain JPEG tiles in a TIFF are decoded directly, which gives the same pixels
several times faster; whatever is unusual there (a missing tile, a damaged one) is left to OpenSlide and its messages.
A reader is opened inside the worker that uses it and keeps one handle of OpenSlide a thread, opened when it is needed
(a handle that met an error stays unusable, so it is opened anew). Transparent pixels and pixels outside the slide
become the slide's background.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openslide
from numpy.typing import NDArray
from PIL import Image

from sampath_wsi.errors import SlideError
from sampath_wsi.geometry import Box
from sampath_wsi.progress import Progress, stepper
from sampath_wsi.slides.direct import DirectLevel
from sampath_wsi.slides.info import SlideInfo, open_slide
from sampath_wsi.slides.jpeg_tiles import UndecodableError, find_jpeg_tiles
from sampath_wsi.slides.resampling import Resampling

_OVERVIEW_READ_PX = 2048
# More pixels of a level (512 MB) are read in pieces: a model of low resolution on a slide that has a single level, or
# a resolution that is wrong.
_MAX_READ_PX = 1 << 27


class SlideReader:
    """Regions of a slide at any resolution; safe to share between threads. Close it, or use it in ``with``."""

    def __init__(self, info: SlideInfo, *, direct: bool = True) -> None:
        """Read a slide; with ``direct`` off, through OpenSlide alone."""
        self.info = info
        self._local = threading.local()
        self._handles: list[openslide.OpenSlide] = []
        self._file: int | None = None
        self._direct: dict[int, DirectLevel] = {}
        if direct and (levels := find_jpeg_tiles(info)):
            self._file = os.open(info.path, os.O_RDONLY)
            self._direct = {k: DirectLevel(self._file, tiles, info.background) for k, tiles in levels.items()}

    @property
    def direct_levels(self) -> frozenset[int]:
        """The levels that are decoded here; all others OpenSlide reads."""
        return frozenset(self._direct)

    def __enter__(self) -> SlideReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def expect(self, boxes_level0_px: Iterable[Box], size_px: tuple[int, int]) -> None:
        """Announce rectangles that will be read, each once, at one size: what they share is then decoded once."""
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
        pieces = list(self._pieces(box_level0_px, out)) if math.prod(plan.size_read_px) > _MAX_READ_PX else []
        if len(pieces) > 1:
            for box, part in pieces:
                self.read(box, (part.shape[1], part.shape[0]), what=what, out=part)
        else:
            plan.apply(self._read_level(level, plan, what), out)
        return out

    def overview(
        self, box_level0_px: Box, size_px: tuple[int, int], *, threads: int = 1, progress: Progress | None = None
    ) -> NDArray[np.uint8]:
        """Read a large rectangle at low resolution, in pieces of bounded size (some slides have a single level).

        Returns
        -------
        ``(height, width, 3)`` uint8, RGB.
        """
        whole = np.empty((size_px[1], size_px[0], 3), np.uint8)
        pieces = list(self._pieces(box_level0_px, whole))
        for box, part in pieces:
            self.expect([box], (part.shape[1], part.shape[0]))

        def read(piece: tuple[Box, NDArray[np.uint8]]) -> None:
            box, part = piece
            self.read(box, (part.shape[1], part.shape[0]), what="the overview", out=part)

        step = stepper(progress, len(pieces), "parts of the overview")
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(read, pieces):
                step()
        return whole

    def _pieces(self, box: Box, whole: NDArray[np.uint8]) -> Iterator[tuple[Box, NDArray[np.uint8]]]:
        """A rectangle of level 0 and the array for it, cut into pieces whose reading takes little memory."""
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
        while self._handles:
            self._handles.pop().close()
        self._local = threading.local()

    def _plan(self, box_level0_px: Box, size_px: tuple[int, int]) -> tuple[int, Resampling]:
        level = self.level_for(min(box_level0_px.width / size_px[0], box_level0_px.height / size_px[1]))
        return level, Resampling.plan(box_level0_px.scaled(1 / self.info.downsamples[level]), size_px)

    def level_for(self, wanted_downsample: float) -> int:
        """The level that is read for a resolution, given in level-0 pixels a pixel."""
        # A thousandth of tolerance: downsamples such as 4.0003 (odd level sizes) still serve a wanted 4.
        fitting = [i for i, d in enumerate(self.info.downsamples) if d <= wanted_downsample * 1.001]
        return max(fitting, key=lambda i: self.info.downsamples[i], default=0)

    def _read_level(self, level: int, plan: Resampling, what: str) -> NDArray[np.uint8]:
        """What a plan wants of a level: ``(y, x, 4)``, RGB and a byte without meaning."""
        if level in self._direct:
            try:
                return self._direct[level].read(plan.left_read_px, plan.top_read_px, plan.size_read_px)
            except UndecodableError:
                pass
        downsample = self.info.downsamples[level]
        corner_level0_px = round(plan.left_read_px * downsample), round(plan.top_read_px * downsample)
        return _over_background(
            self._read_openslide(corner_level0_px, level, plan.size_read_px, what), self.info.background
        )

    def _read_openslide(
        self, corner_level0_px: tuple[int, int], level: int, size_read_px: tuple[int, int], what: str
    ) -> Image.Image:
        try:
            return self._handle().read_region(corner_level0_px, level, size_read_px)
        except (openslide.OpenSlideError, OSError):
            self._drop_handle()
        try:
            return self._handle().read_region(corner_level0_px, level, size_read_px)
        except (openslide.OpenSlideError, OSError) as error:
            self._drop_handle()
            raise SlideError(
                f"{self.info.path}: cannot read {what} (level {level}, level-0 pixel {corner_level0_px}, "
                f"{size_read_px[0]} x {size_read_px[1]} px): {error}",
                "The file is damaged there: copy or export it again.",
            ) from error

    def _handle(self) -> openslide.OpenSlide:
        handle = getattr(self._local, "handle", None)
        if handle is None:
            handle = self._local.handle = open_slide(self.info.path)
            self._handles.append(handle)
        return handle

    def _drop_handle(self) -> None:
        handle = getattr(self._local, "handle", None)
        if handle is not None:
            handle.close()
            self._handles.remove(handle)
            self._local.handle = None


def _over_background(rgba: Image.Image, background: tuple[int, int, int]) -> NDArray[np.uint8]:
    pixels = np.asarray(rgba)
    if pixels[..., 3].min() == 255:
        return pixels
    base = Image.new("RGB", rgba.size, background)
    base.paste(rgba, mask=rgba.getchannel("A"))
    return np.asarray(base.convert("RGBX"))
