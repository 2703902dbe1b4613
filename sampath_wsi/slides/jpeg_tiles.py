"""Pyramid levels that are plain JPEG tiles in a TIFF: where each tile lies in the file, and its pixels.

Decoding a tile directly gives the pixels that OpenSlide gives (both call libjpeg-turbo with the same settings) in a
fraction of the time. Where that is not certain, a level is left out or :class:`UndecodableError` raised, and OpenSlide
reads.
"""

from __future__ import annotations

import logging
import math
import os
from dataclasses import dataclass

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
# What libjpeg fills in for data that are missing.
_FILLER = 128


class UndecodableError(Exception):
    """OpenSlide must read this tile: it is missing, damaged, or may be."""


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
        """How many tiles there are down and across."""
        return -(-self.size_px[1] // self.tile_px[1]), -(-self.size_px[0] // self.tile_px[0])

    def decode(self, file: int, index: int, out: NDArray[np.uint8]) -> None:
        """Decode a tile into ``out (y, x, 4)``: RGB and a byte that is 255; safe in several threads at once.

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
            imagecodecs.jpeg8_decode(
                data,
                tables=self.tables,
                colorspace=self.colour_space,
                outcolorspace=imagecodecs.JPEG8.CS.EXT_RGBA,
                out=out,
            )
        except (RuntimeError, ValueError) as error:
            raise UndecodableError from error
        # The decoder does not say when data end too early, but then the last pixel is filler (without restarts).
        if (out[-1, -1, :3] == _FILLER).all():
            raise UndecodableError


def find_jpeg_tiles(info: SlideInfo) -> dict[int, JpegTiles]:
    """The levels of a slide that can be decoded directly, by OpenSlide's number of the level.

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
