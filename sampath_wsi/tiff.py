"""Pyramidal TIFFs written tile by tile in memory that does not grow with their height, and OME-TIFFs of one channel.

A level is written strip of tiles by strip of tiles, and makes the strips of the next one on the way.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import tifffile
from numpy.typing import NDArray

from sampath_wsi import __version__
from sampath_wsi.files import written_aside
from sampath_wsi.progress import Progress, stepper
from sampath_wsi.stores.pyramid import Window, even, level_count

Pixels = NDArray[np.uint8]
"""``(y, x)`` or ``(y, x, 3)``."""

TILE_PX = 512
_ENCODED_AT_ONCE_BYTES = 1 << 23
# Offsets of a classic TIFF have 32 bits; some room is left for incompressible data and for headers.
_CLASSIC_BYTES = 0xF000_0000


def write_levels(
    shapes: Sequence[tuple[int, ...]],
    strips: Iterable[Pixels],
    shrink: Callable[[Pixels], Pixels],
    write_level: Callable[[int, Iterator[Pixels]], None],
    folder: Path,
) -> None:
    """Write the levels of a pyramid from its strips.

    Parameters
    ----------
    shapes
        Of the levels: ``(height, width)`` or ``(height, width, 3)``.
    strips
        Level 0 in strips :data:`TILE_PX` high, but for the last.
    shrink
        From a strip to the part of the next level under it.
    write_level
        Called with the number of a level and its tiles in the order of the file; those at the border are smaller. It
        takes all of them.
    folder
        Where a level waits until it is written, in a file without a name.
    """
    with ExitStack() as held:
        for level in range(len(shapes)):
            below = held.enter_context(tempfile.TemporaryFile(dir=folder)) if level + 1 < len(shapes) else None
            write_level(level, _tiles(strips, below, shrink))
            if below is not None:
                strips = _waiting_strips(below, shapes[level + 1])


def _tiles(strips: Iterable[Pixels], below: IO[bytes] | None, shrink: Callable[[Pixels], Pixels]) -> Iterator[Pixels]:
    for strip in strips:
        if below is not None:
            below.write(shrink(strip).tobytes())
        for left in range(0, strip.shape[1], TILE_PX):
            yield strip[:, left : left + TILE_PX]


def _waiting_strips(file: IO[bytes], shape: tuple[int, ...]) -> Iterator[Pixels]:
    file.seek(0)
    while data := file.read(TILE_PX * math.prod(shape[1:])):
        yield np.frombuffer(data, np.uint8).reshape(-1, *shape[1:])


@dataclass(frozen=True)
class Picture:
    """The metadata of an OME-TIFF with one channel and square pixels.

    Parameters
    ----------
    size_px, mpp
        (width, height) of the first level, and its micrometres a pixel.
    corner_um
        (x, y) of the corner of the first pixel on the slide.
    color
        RGB of the channel, where there is no palette.
    uuid
        Names the content.
    palette
        ``(values, 3)`` uint8: the colour of every value; the file is then RGB.
    """

    name: str
    size_px: tuple[int, int]
    mpp: float
    corner_um: tuple[float, float]
    channel: str
    color: tuple[int, int, int]
    uuid: str
    palette: NDArray[np.uint8] | None = None


def write_ome_tiff(
    path: Path,
    picture: Picture,
    compute: Callable[[Window], Pixels],
    halve: Callable[[Pixels], Pixels],
    *,
    threads: int = 2,
    progress: Progress | None = None,
    classic_bytes: int = _CLASSIC_BYTES,
) -> None:
    """Write a pyramid; its levels are sub-images (SubIFDs) of the first, as Bio-Formats, QuPath and tifffile read them.

    Parameters
    ----------
    path
        The file (``*.ome.tif``); it appears when it is whole.
    compute
        From a window of the first level to its values, ``(y, x)`` uint8; called by several threads at once.
    halve
        From ``(2 y, 2 x)`` to ``(y, x)``.
    classic_bytes
        BigTIFF is written where the file may become larger.
    """
    width, height = picture.size_px
    palette = picture.palette
    samples = () if palette is None else (3,)
    shapes = [(-(-height // 2**k), -(-width // 2**k)) for k in range(level_count(height, width))]
    lefts = range(0, width, TILE_PX)
    tile_count = -(-height // TILE_PX) * len(lefts)
    big = tile_count * TILE_PX**2 * (samples or (1,))[0] * 4 // 3 > classic_bytes
    step = stepper(progress, tile_count, "tiles")
    with (
        written_aside(path) as aside,
        ThreadPoolExecutor(threads, "picture") as pool,
        tifffile.TiffWriter(aside, ome=True, bigtiff=big) as writer,
    ):

        def strips() -> Iterator[Pixels]:
            for top in range(0, height, TILE_PX):
                bottom = min(top + TILE_PX, height)
                windows = [(top, left, bottom, min(left + TILE_PX, width)) for left in lefts]
                yield np.concatenate(list(pool.map(compute, windows)), axis=1)
                step(len(windows))

        def write_level(level: int, tiles: Iterator[Pixels]) -> None:
            per_cm = 1e4 / (picture.mpp * 2**level)
            writer.write(
                data=tiles if palette is None else (palette[tile] for tile in tiles),
                shape=(*shapes[level], *samples),
                dtype=np.uint8,
                tile=(TILE_PX, TILE_PX),
                photometric="rgb" if samples else "minisblack",
                compression="zlib",
                maxworkers=threads,
                buffersize=_ENCODED_AT_ONCE_BYTES,
                resolution=(per_cm, per_cm),
                resolutionunit="CENTIMETER",
                software=f"sampath-wsi {__version__}",
                metadata=None if level else _ome(picture),
                subfiletype=1 if level else None,
                subifds=None if level else len(shapes) - 1,
            )

        write_levels(shapes, strips(), lambda strip: halve(even(strip)), write_level, path.parent)


def _ome(picture: Picture) -> dict[str, object]:
    """Return the OME metadata as tifffile takes them."""
    channel: dict[str, object] = {"Name": [picture.channel]}
    if picture.palette is None:
        red, green, blue = picture.color
        channel["Color"] = [int(np.array([red << 24 | green << 16 | blue << 8 | 255], np.uint32).view(np.int32)[0])]
    return {
        "axes": "YX" if picture.palette is None else "YXS",
        "UUID": picture.uuid,
        "Creator": f"sampath-wsi {__version__}",
        "Name": picture.name,
        "PhysicalSizeX": picture.mpp,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": picture.mpp,
        "PhysicalSizeYUnit": "µm",
        "Channel": channel,
        "Plane": {
            "PositionX": [picture.corner_um[0]],
            "PositionXUnit": ["µm"],
            "PositionY": [picture.corner_um[1]],
            "PositionYUnit": ["µm"],
        },
    }
