"""Pyramidal OME-TIFFs of one byte a pixel, or of bytes shown in colours: tiled, compressed, written tile by tile.

The first level is computed row of tiles by row of tiles; each further level, half the one before, is made on the way
and waits in a file without a name. So the memory needed is two rows of tiles for each level, whatever the height.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from sampath_wsi import __version__
from sampath_wsi.files import written_aside
from sampath_wsi.progress import Progress, Step, stepper
from sampath_wsi.stores.pyramid import Window, even, level_count

Plane = NDArray[np.uint8]

_TILE_PX = 512
_ENCODED_AT_ONCE_BYTES = 1 << 23
# Offsets of a classic TIFF have 32 bits; some room is left for what does not compress, and for headers.
_CLASSIC_BYTES = 0xF000_0000


@dataclass(frozen=True)
class Picture:
    """What a file says of itself.

    Parameters
    ----------
    name
        Of the image.
    size_px
        (width, height) of the first level.
    um_per_px
        Of the first level; pixels are square.
    corner_um
        (x, y) of the corner of the first pixel on the slide.
    channel, color
        Name and RGB colour of the only channel; not used where there is a palette.
    palette
        ``(values, 3)`` uint8: the colour of every value; the file is then RGB.
    uuid
        Names the content.
    """

    name: str
    size_px: tuple[int, int]
    um_per_px: float
    corner_um: tuple[float, float]
    channel: str
    color: tuple[int, int, int]
    uuid: str
    palette: NDArray[np.uint8] | None = None


def write_ome_tiff(
    path: Path,
    picture: Picture,
    compute: Callable[[Window], Plane],
    halve: Callable[[Plane], Plane],
    *,
    threads: int = 2,
    progress: Progress | None = None,
) -> None:
    """Write a pyramid; its levels are sub-images (SubIFDs) of the first, as Bio-Formats, QuPath and tifffile read them.

    Parameters
    ----------
    path
        The file (``*.ome.tif``); it appears when it is whole. BigTIFF where it may pass 4 GB.
    compute
        From a window of the first level to its values, ``(y, x)`` uint8; called by several threads at once.
    halve
        From ``(2 y, 2 x)`` to ``(y, x)``.
    """
    width, height = picture.size_px
    levels = level_count(height, width)
    tiles = -(-width // _TILE_PX) * -(-height // _TILE_PX)
    samples = 1 if picture.palette is None else 3
    step = stepper(progress, tiles, "tiles")
    with ExitStack() as held:
        aside = held.enter_context(written_aside(path))
        pool = held.enter_context(ThreadPoolExecutor(threads, "picture"))
        big = tiles * _TILE_PX**2 * samples * 4 // 3 > _CLASSIC_BYTES
        writer = held.enter_context(tifffile.TiffWriter(aside, ome=True, bigtiff=big))
        strips = _computed(picture.size_px, compute, pool, step)
        for level in range(levels):
            below = None
            if level + 1 < levels:
                file = held.enter_context(tempfile.TemporaryFile(dir=path.parent))
                below = _Level(-(-width // 2), -(-height // 2), file)
            _write_level(writer, picture, level, levels, (height, width), _tiles(strips, below, halve), threads)
            if below is not None:
                width, height, strips = below.width_px, below.height_px, below.strips()


class _Level:
    """A level that is made of the one before, strip by strip, and then read again."""

    def __init__(self, width_px: int, height_px: int, file: IO[bytes]) -> None:
        self.width_px, self.height_px = width_px, height_px
        self._file = file

    def add(self, strip: Plane) -> None:
        self._file.write(strip.tobytes())

    def strips(self) -> Iterator[Plane]:
        self._file.seek(0)
        for top in range(0, self.height_px, _TILE_PX):
            rows = min(_TILE_PX, self.height_px - top)
            yield np.frombuffer(self._file.read(rows * self.width_px), np.uint8).reshape(rows, self.width_px)


def _computed(
    size_px: tuple[int, int], compute: Callable[[Window], Plane], pool: Executor, step: Step
) -> Iterator[Plane]:
    """The first level in strips one tile high."""
    width, height = size_px
    for top in range(0, height, _TILE_PX):
        bottom = min(top + _TILE_PX, height)
        windows = [(top, left, bottom, min(left + _TILE_PX, width)) for left in range(0, width, _TILE_PX)]
        yield np.concatenate(list(pool.map(compute, windows)), axis=1)
        step(len(windows))


def _tiles(strips: Iterator[Plane], below: _Level | None, halve: Callable[[Plane], Plane]) -> Iterator[Plane]:
    """A level's tiles in the order of the file, while the next level is made of its strips."""
    for strip in strips:
        if below is not None:
            below.add(halve(even(strip)))
        for left in range(0, strip.shape[1], _TILE_PX):
            yield strip[:, left : left + _TILE_PX]


def _write_level(
    writer: tifffile.TiffWriter,
    picture: Picture,
    level: int,
    levels: int,
    shape: tuple[int, int],
    tiles: Iterator[Plane],
    threads: int,
) -> None:
    palette = picture.palette
    per_cm = 1e4 / (picture.um_per_px * 2**level)
    writer.write(
        data=tiles if palette is None else (palette[tile] for tile in tiles),
        shape=shape if palette is None else (*shape, 3),
        dtype=np.uint8,
        tile=(_TILE_PX, _TILE_PX),
        photometric="minisblack" if palette is None else "rgb",
        compression="zlib",
        maxworkers=threads,
        buffersize=_ENCODED_AT_ONCE_BYTES,
        resolution=(per_cm, per_cm),
        resolutionunit="CENTIMETER",
        software=f"sampath-wsi {__version__}",
        **({"subifds": levels - 1, "metadata": _ome(picture)} if level == 0 else {"subfiletype": 1, "metadata": None}),
    )


def _ome(picture: Picture) -> dict[str, Any]:
    """The OME metadata, as tifffile takes them."""
    channel: dict[str, Any] = {"Name": [picture.channel]}
    if picture.palette is None:
        red, green, blue = picture.color
        channel["Color"] = [int(np.array([red << 24 | green << 16 | blue << 8 | 255], np.uint32).view(np.int32)[0])]
    return {
        "axes": "YX" if picture.palette is None else "YXS",
        "UUID": picture.uuid,
        "Creator": f"sampath-wsi {__version__}",
        "Name": picture.name,
        "PhysicalSizeX": picture.um_per_px,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": picture.um_per_px,
        "PhysicalSizeYUnit": "µm",
        "Channel": channel,
        "Plane": {
            "PositionX": [picture.corner_um[0]],
            "PositionXUnit": ["µm"],
            "PositionY": [picture.corner_um[1]],
            "PositionYUnit": ["µm"],
        },
    }
