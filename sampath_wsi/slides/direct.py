"""Regions of a level of JPEG tiles, put together from tiles that are each decoded once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from itertools import product

import numpy as np
from numpy.typing import NDArray

from sampath_wsi.slides.jpeg_tiles import JpegTiles

Pixels = NDArray[np.uint8]

# Decoded tiles that wait for another region. Regions are read in stripes of some tiles of the model, so what waits is
# a strip where two rows of them overlap: 16,000 x 768 px (three native tiles of 256) take 50 MB; two strips have room.
KEPT_BYTES = 128 << 20


class _Tile:
    """A decoded tile and how many threads are reading it; its memory is used again when none is."""

    def __init__(self, memory: Pixels) -> None:
        self.memory = memory
        self.pixels: Future[Pixels] = Future()
        self.readers = 0


class DirectLevel:
    """A level of JPEG tiles of an open file; safe to share between threads.

    A tile that several announced regions need is kept from the first that reads it to the last; where more would be
    kept than :data:`KEPT_BYTES`, the oldest is given up, to be decoded again. A region that was not announced keeps
    nothing.
    """

    def __init__(self, file: int, tiles: JpegTiles, background: tuple[int, int, int]) -> None:
        self._file = file
        self._tiles = tiles
        # Whole pixels are filled as one number each, which numpy does fast.
        self._background = np.array([*background, 255], np.uint8).view(np.uint32)
        self._awaited = np.zeros(tiles.rows_columns, np.uint16)
        self._kept: dict[tuple[int, int], _Tile] = {}
        self._free: list[Pixels] = []
        self._lock = threading.Lock()
        self._canvas = threading.local()

    def expect(self, left: int, top: int, size_px: tuple[int, int]) -> None:
        """Announce a region that will be read, once: its corner and (width, height) in pixels of the level."""
        rows, columns = self._touched(left, top, size_px)
        with self._lock:
            self._awaited[rows.start : rows.stop, columns.start : columns.stop] += 1

    def read(self, left: int, top: int, size_px: tuple[int, int]) -> Pixels:
        """Read a region given in pixels of the level; it may reach beyond it, where the background is.

        Returns
        -------
        ``(height, width, 4)`` uint8: RGB and a byte without meaning. It is the calling thread's, until it reads again.

        Raises
        ------
        UndecodableError
            If OpenSlide must read the region.
        """
        width, height = size_px
        level_width, level_height = self._tiles.size_px
        canvas = self._own_canvas(height, width)
        if min(left, top) < 0 or left + width > level_width or top + height > level_height:
            canvas.view(np.uint32)[...] = self._background
        for row, column in product(*self._touched(left, top, size_px)):
            # The part of the tile that lies in the region and on the level.
            x, y = column * self._tiles.tile_px[0], row * self._tiles.tile_px[1]
            x0, x1 = max(x, left), min(x + self._tiles.tile_px[0], left + width, level_width)
            y0, y1 = max(y, top), min(y + self._tiles.tile_px[1], top + height, level_height)
            with self._tile(row, column) as pixels:
                canvas[y0 - top : y1 - top, x0 - left : x1 - left] = pixels[y0 - y : y1 - y, x0 - x : x1 - x]
        return canvas

    def _touched(self, left: int, top: int, size_px: tuple[int, int]) -> tuple[range, range]:
        """Rows and columns of the tiles that a region touches."""
        (width, height), (rows, columns) = self._tiles.tile_px, self._tiles.rows_columns
        return (
            range(max(0, top // height), max(0, min(rows, -(-(top + size_px[1]) // height)))),
            range(max(0, left // width), max(0, min(columns, -(-(left + size_px[0]) // width)))),
        )

    @contextmanager
    def _tile(self, row: int, column: int) -> Iterator[Pixels]:
        """A tile's pixels: kept ones, or decoded now; while one thread decodes a tile, others that need it wait."""
        with self._lock:
            tile, is_new = self._take(row, column)
        try:
            if is_new:
                self._decode(tile, row, column)
            yield tile.pixels.result()
        finally:
            with self._lock:
                tile.readers -= 1
                self._reuse(tile, row, column)

    def _take(self, row: int, column: int) -> tuple[_Tile, bool]:
        awaited = self._awaited[row, column] = max(int(self._awaited[row, column]), 1) - 1
        tile = self._kept.get((row, column))
        if tile is not None:
            if not awaited:
                del self._kept[row, column]
            tile.readers += 1
            return tile, False
        width, height = self._tiles.tile_px
        tile = _Tile(self._free.pop() if self._free else np.empty((height, width, 4), np.uint8))
        tile.readers = 1
        if awaited:
            self._kept[row, column] = tile
            if len(self._kept) * tile.memory.nbytes > KEPT_BYTES:
                oldest = next(iter(self._kept))
                self._reuse(self._kept.pop(oldest), *oldest)
        return tile, True

    def _decode(self, tile: _Tile, row: int, column: int) -> None:
        try:
            self._tiles.decode(self._file, row * self._tiles.rows_columns[1] + column, tile.memory)
        except BaseException as error:
            tile.pixels.set_exception(error)
        else:
            tile.pixels.set_result(tile.memory)

    def _reuse(self, tile: _Tile, row: int, column: int) -> None:
        """Keep the memory of a tile that is neither kept nor read for the next one: fresh memory costs time."""
        if not tile.readers and self._kept.get((row, column)) is not tile:
            self._free.append(tile.memory)

    def _own_canvas(self, height: int, width: int) -> Pixels:
        memory: Pixels | None = getattr(self._canvas, "memory", None)
        if memory is None or memory.size < height * width * 4:
            memory = self._canvas.memory = np.empty(height * width * 4, np.uint8)
        return memory[: height * width * 4].reshape(height, width, 4)
