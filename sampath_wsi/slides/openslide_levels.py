"""Windows of a slide's levels, read by OpenSlide."""

from __future__ import annotations

import threading

import numpy as np
import openslide
from numpy.typing import NDArray
from PIL import Image

from sampath_wsi.errors import SlideError
from sampath_wsi.slides.info import SlideInfo, open_slide


class OpenSlideLevels:
    """The levels of a slide; safe to share between threads.

    Each thread has a handle of OpenSlide, opened when it is needed. A handle that met an error stays unusable: it is
    opened anew.
    """

    def __init__(self, info: SlideInfo) -> None:
        self._info = info
        self._local = threading.local()
        self._handles: list[openslide.OpenSlide] = []

    def read(self, level: int, left: int, top: int, size_px: tuple[int, int], what: str) -> NDArray[np.uint8]:
        """Read a window given in pixels of the level; it may reach beyond it, where the background is.

        Returns
        -------
        ``(height, width, 4)`` uint8: RGB and a byte without meaning.

        Raises
        ------
        SlideError
            If reading fails twice, the second time with a fresh handle; ``what`` is named.
        """
        downsample = self._info.downsamples[level]
        corner_level0_px = round(left * downsample), round(top * downsample)
        try:
            rgba = self._read(corner_level0_px, level, size_px)
        except (openslide.OpenSlideError, OSError):
            try:
                rgba = self._read(corner_level0_px, level, size_px)
            except (openslide.OpenSlideError, OSError) as error:
                raise SlideError(
                    f"{self._info.path}: cannot read {what} (level {level}, level-0 pixel {corner_level0_px}, "
                    f"{size_px[0]} x {size_px[1]} px): {error}",
                    "The file is damaged there: copy or export it again.",
                ) from error
        pixels = np.asarray(rgba)
        if pixels[..., 3].min() == 255:
            return pixels
        base = Image.new("RGB", rgba.size, self._info.background)
        base.paste(rgba, mask=rgba.getchannel("A"))
        return np.asarray(base.convert("RGBX"))

    def close(self) -> None:
        """Close all handles; no thread may be reading."""
        while self._handles:
            self._handles.pop().close()
        self._local = threading.local()

    def _read(self, corner_level0_px: tuple[int, int], level: int, size_px: tuple[int, int]) -> Image.Image:
        handle: openslide.OpenSlide | None = getattr(self._local, "handle", None)
        if handle is None:
            handle = self._local.handle = open_slide(self._info.path)
            self._handles.append(handle)
        try:
            return handle.read_region(corner_level0_px, level, size_px)
        except (openslide.OpenSlideError, OSError):
            handle.close()
            self._handles.remove(handle)
            self._local.handle = None
            raise
