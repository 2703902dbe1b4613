"""Pyramid levels that are plain JPEG tiles in a TIFF, decoded directly, each tile once for all windows that need it.

Decoding a tile directly gives the pixels that OpenSlide gives (both call libjpeg-turbo with the same settings) in a
fraction of the time. Where that is not certain, a level is left out or :class:`UndecodableError` raised, and OpenSlide
reads.
"""

from __future__ import annotations

import logging
import math
import os
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import product

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from sampath_wsi.slides.info import SlideInfo

log = logging.getLogger(__name__)

# In these formats a level of OpenSlide is a tiled image of the TIFF, tile by tile, with nothing shifted or cropped.
_VENDORS = ("aperio", "generic-tiff")
_COLOUR_SPACES: dict[int, str] = {tifffile.PHOTOMETRIC.RGB: "RGB", tifffile.PHOTOMETRIC.YCBCR: "YCBCR"}
_RESTART_INTERVAL = b"\xff\xdd\x00\x04"
# Threads hold several tiles in memory; larger ones than this (slides in one piece) are OpenSlide's.
_MAX_TILE_PX = 1 << 24
# The value that libjpeg fills in for missing data.
_FILLER = 128
# Decoded tiles that wait for another window. Windows are read in stripes of some tiles of the model, so what waits is a
# strip where two rows of them overlap: 16,000 x 768 px (three native tiles of 256) take 50 MB; two strips have room.
KEPT_BYTES = 128 << 20

Pixels = NDArray[np.uint8]


class UndecodableError(Exception):
    """A tile that OpenSlide must read, because it is missing or may be damaged."""


@dataclass(frozen=True, eq=False)
class JpegTiles:
    """A level: its size and that of its tiles, (width, height), and the bytes of each tile, row by row."""

    size_px: tuple[int, int]
    tile_px: tuple[int, int]
    offsets: NDArray[np.int64]
    byte_counts: NDArray[np.int64]
    tables: bytes | None
    colour_space: str

    @property
    def rows_columns(self) -> tuple[int, int]:
        """Return how many tiles there are down and across."""
        return -(-self.size_px[1] // self.tile_px[1]), -(-self.size_px[0] // self.tile_px[0])

    def decode(self, file: int, index: int) -> Pixels:
        """Decode a tile of an open file: ``(y, x, 4)``, RGB and a byte that is 255; safe in several threads at once.

        Raises
        ------
        UndecodableError
            If OpenSlide must read it.
        """
        count = int(self.byte_counts[index])
        # A tile that is not in the file is not looked for: its length alone may be more than there is memory.
        inside = 0 < count <= os.fstat(file).st_size - int(self.offsets[index]) and self.offsets[index] >= 0
        data = os.pread(file, count, int(self.offsets[index])) if inside else b""
        if not data or len(data) < count or _RESTART_INTERVAL in data:
            raise UndecodableError
        try:
            pixels: Pixels = imagecodecs.jpeg8_decode(
                data,
                tables=self.tables,
                colorspace=self.colour_space,
                outcolorspace=imagecodecs.JPEG8.CS.EXT_RGBA,
                out=np.empty((self.tile_px[1], self.tile_px[0], 4), np.uint8),
            )
        except (RuntimeError, ValueError) as error:
            raise UndecodableError from error
        # The decoder does not say when data end too early, but then the last pixel is filler (without restarts).
        if (pixels[-1, -1, :3] == _FILLER).all():
            raise UndecodableError
        return pixels


class JpegLevel:
    """A level of JPEG tiles of an open file, read in windows; safe to share between threads.

    A tile that several announced windows need is kept from the first that reads it to the last; where more would be
    kept than ``kept_bytes``, the oldest is given up, to be decoded again. A window that was not announced keeps
    nothing.
    """

    def __init__(
        self, file: int, tiles: JpegTiles, background: tuple[int, int, int], kept_bytes: int = KEPT_BYTES
    ) -> None:
        self.kept: dict[tuple[int, int], Future[Pixels]] = {}
        self.awaited = np.zeros(tiles.rows_columns, np.uint16)
        self._file = file
        self._tiles = tiles
        # Whole pixels are filled as one number each, which numpy does fast.
        self._background = np.array([*background, 255], np.uint8).view(np.uint32)
        self._most_kept = kept_bytes // (4 * math.prod(tiles.tile_px))
        self._lock = threading.Lock()
        self._canvas = threading.local()

    def expect(self, left: int, top: int, size_px: tuple[int, int]) -> None:
        """Announce a window that will be read, once: its corner and (width, height) in pixels of the level."""
        rows, columns = self._touched(left, top, size_px)
        with self._lock:
            self.awaited[rows.start : rows.stop, columns.start : columns.stop] += 1

    def read(self, left: int, top: int, size_px: tuple[int, int]) -> Pixels:
        """Read a window given in pixels of the level; it may reach beyond it, where the background is.

        Returns
        -------
        ``(height, width, 4)`` uint8: RGB and a byte without meaning. It is the calling thread's, until it reads again.

        Raises
        ------
        UndecodableError
            If OpenSlide must read the window.
        """
        width, height = size_px
        level_width, level_height = self._tiles.size_px
        tile_width, tile_height = self._tiles.tile_px
        canvas = self._own_canvas(height, width)
        if min(left, top) < 0 or left + width > level_width or top + height > level_height:
            canvas.view(np.uint32)[...] = self._background
        for row, column in product(*self._touched(left, top, size_px)):
            # The part of the tile that lies in the window and on the level.
            x, y = column * tile_width, row * tile_height
            x0, x1 = max(x, left), min(x + tile_width, left + width, level_width)
            y0, y1 = max(y, top), min(y + tile_height, top + height, level_height)
            pixels = self._tile(row, column)
            canvas[y0 - top : y1 - top, x0 - left : x1 - left] = pixels[y0 - y : y1 - y, x0 - x : x1 - x]
        return canvas

    def _touched(self, left: int, top: int, size_px: tuple[int, int]) -> tuple[range, range]:
        """Return the rows and columns of the tiles that a window touches."""
        (width, height), (rows, columns) = self._tiles.tile_px, self._tiles.rows_columns
        return (
            range(max(0, top // height), max(0, min(rows, -(-(top + size_px[1]) // height)))),
            range(max(0, left // width), max(0, min(columns, -(-(left + size_px[0]) // width)))),
        )

    def _tile(self, row: int, column: int) -> Pixels:
        """Return a tile's pixels, kept or decoded now; while one thread decodes a tile, others that need it wait."""
        place = row, column
        with self._lock:
            awaited = self.awaited[place] = max(int(self.awaited[place]), 1) - 1
            tile = self.kept.get(place)
            is_new = tile is None
            tile = tile or Future()
            if awaited:
                self.kept[place] = tile
                if len(self.kept) > self._most_kept:
                    del self.kept[next(iter(self.kept))]
            else:
                self.kept.pop(place, None)
        if is_new:
            try:
                tile.set_result(self._tiles.decode(self._file, row * self._tiles.rows_columns[1] + column))
            except BaseException as error:  # of any kind: threads that wait for the tile must hear of it
                tile.set_exception(error)
        return tile.result()

    def _own_canvas(self, height: int, width: int) -> Pixels:
        memory: Pixels | None = getattr(self._canvas, "memory", None)
        if memory is None or memory.size < height * width * 4:
            memory = self._canvas.memory = np.empty(height * width * 4, np.uint8)
        return memory[: height * width * 4].reshape(height, width, 4)


def find_jpeg_tiles(info: SlideInfo) -> dict[int, JpegTiles]:
    """Find the levels of a slide that can be decoded directly, by OpenSlide's number of the level.

    Only levels whose pixels are a whole number of level-0 pixels: between them OpenSlide, which is asked for level-0
    positions, interpolates.
    """
    if info.vendor not in _VENDORS:
        return {}
    try:
        with tifffile.TiffFile(info.path) as tiff:
            pages = [page for page in tiff.pages if isinstance(page, tifffile.TiffPage) and page.is_tiled]
            return {
                level: found
                for level, size in enumerate(info.level_sizes)
                if info.downsamples[level].is_integer() and (found := _tiles_of_size(pages, size)) is not None
            }
    except Exception as error:  # A TIFF that this library cannot parse, in whichever way, is left to OpenSlide.
        log.debug("%s: not decoded directly: %s", info.path, error)
        return {}


def _tiles_of_size(pages: list[tifffile.TiffPage], size_px: tuple[int, int]) -> JpegTiles | None:
    fitting = [page for page in pages if (page.imagewidth, page.imagelength) == size_px]
    if len(fitting) != 1 or not _is_plain_jpeg(fitting[0]):
        return None
    page = fitting[0]
    found = JpegTiles(
        size_px=size_px,
        tile_px=(page.tilewidth, page.tilelength),
        offsets=np.array(page.dataoffsets, np.int64),
        byte_counts=np.array(page.databytecounts, np.int64),
        tables=page.jpegtables,
        colour_space=_COLOUR_SPACES[page.photometric],
    )
    if not 0 < math.prod(found.tile_px) <= _MAX_TILE_PX:
        return None
    rows, columns = found.rows_columns
    return found if len(found.offsets) == len(found.byte_counts) == rows * columns else None


def _is_plain_jpeg(page: tifffile.TiffPage) -> bool:
    return (
        page.compression == tifffile.COMPRESSION.JPEG
        and page.photometric in _COLOUR_SPACES
        and page.planarconfig == tifffile.PLANARCONFIG.CONTIG
        and (page.samplesperpixel, page.bitspersample) == (3, 8)
        and isinstance(page.jpegtables, bytes | None)
        and page.imagedepth == page.tiledepth == 1
        and page.tags.valueof("Orientation", default=1) == 1
    )
