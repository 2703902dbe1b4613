"""Writes a synthetic slide: a pyramidal tiled BigTIFF, and its true class map.

The slide is painted in strips of whole tiles, so that the memory needed does not grow with the slide's height and
hardly with its width. The lower levels are averaged on the way down into scratch files.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from sampath_wsi.files import written_aside
from sampath_wsi.progress import Progress, stepper
from sampath_wsi.synthetic.render import Painter
from sampath_wsi.synthetic.scene import Scene

Pixels = NDArray[np.uint8]

_TILE_PX = 512
_LEVEL_STEP = 4
_JPEG_QUALITY = 85
_PAINT_PX = 1024
_SMALLEST_LEVEL_PX = 256


def make_slide(
    path: str | Path,
    truth_path: str | Path | None = None,
    *,
    width_px: int = 8000,
    height_px: int = 6000,
    mpp: float = 0.25,
    seed: int = 0,
    progress: Progress | None = None,
) -> Scene:
    """Make a synthetic H&E slide and its true class map.

    Parameters
    ----------
    path
        The slide to write: BigTIFF, JPEG tiles, levels at 1, 4, 16, ... that OpenSlide reads as a pyramid.
    truth_path
        The class map to write, or None: tiled uint8 TIFF at a quarter of the slide's resolution, 0 = glass,
        i + 1 = class i of :data:`sampath_wsi.synthetic.CLASSES`.
    width_px, height_px
        Size of level 0.
    mpp
        Micrometres a level-0 pixel.
    seed
        Everything random is drawn from it; the same arguments give the same bytes.

    Returns
    -------
    The scene, which can tell the class map of any window.

    Raises
    ------
    ConfigError
        If the size or the resolution make no slide.
    """
    scene = Scene(width_px, height_px, mpp, seed)
    with written_aside(Path(path)) as aside:
        _write_pyramid(aside, scene, progress)
    if truth_path is not None:
        with written_aside(Path(truth_path)) as aside:
            _write_truth(aside, scene)
    return scene


def _write_pyramid(path: Path, scene: Scene, progress: Progress | None) -> None:
    painter = Painter(scene)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".levels-") as scratch, _open(path) as tiff:
        below = _Level(scene.width_px, scene.height_px, Path(scratch) / "1")
        _write_level(tiff, scene, 1, (scene.height_px, scene.width_px), _painted(painter, below, progress))
        downsample = _LEVEL_STEP
        while True:
            level, below = below, _Level(below.width_px, below.height_px, Path(scratch) / str(downsample))
            _write_level(tiff, scene, downsample, (level.height_px, level.width_px), _stored(level, below))
            downsample *= _LEVEL_STEP
            if min(level.width_px, level.height_px) < _LEVEL_STEP * _SMALLEST_LEVEL_PX:
                return


def _open(path: Path) -> tifffile.TiffWriter:
    return tifffile.TiffWriter(path, bigtiff=True)


class _Level:
    """The level below another of the given size, on disk while it is averaged strip by strip."""

    def __init__(self, above_width_px: int, above_height_px: int, path: Path) -> None:
        # Rounded down, as scanners do; the last pixels of the level above that make no whole pixel are left out.
        self.width_px, self.height_px = max(1, above_width_px // _LEVEL_STEP), max(1, above_height_px // _LEVEL_STEP)
        self._path = path

    def add_strip(self, strip: Pixels) -> None:
        """Average a strip of whole rows of the level above, a multiple of the step high but for the last."""
        rows, columns = strip.shape[0] // _LEVEL_STEP, self.width_px
        if rows:
            part = strip[: rows * _LEVEL_STEP, : columns * _LEVEL_STEP]
            blocks = part.reshape(rows, _LEVEL_STEP, columns, _LEVEL_STEP, 3)
            total = blocks.sum(axis=(1, 3), dtype=np.uint16)
            with self._path.open("ab") as file:
                file.write(((total + _LEVEL_STEP**2 // 2) // _LEVEL_STEP**2).astype(np.uint8).tobytes())

    def strips(self) -> Iterator[Pixels]:
        """The finished level in strips one tile high."""
        with self._path.open("rb") as file:
            for top in range(0, self.height_px, _TILE_PX):
                rows = min(_TILE_PX, self.height_px - top)
                data = np.frombuffer(file.read(rows * self.width_px * 3), np.uint8)
                yield data.reshape(rows, self.width_px, 3)


def _painted(painter: Painter, below: _Level, progress: Progress | None) -> Iterator[Pixels]:
    """Tiles of level 0 in file order."""
    scene = painter.scene
    step = stepper(progress, -(-scene.height_px // _TILE_PX) * -(-scene.width_px // _PAINT_PX), "parts painted")
    for top in range(0, scene.height_px, _TILE_PX):
        rows = min(_TILE_PX, scene.height_px - top)
        strip = np.empty((rows, scene.width_px, 3), np.uint8)
        for left in range(0, scene.width_px, _PAINT_PX):
            columns = min(_PAINT_PX, scene.width_px - left)
            strip[:, left : left + columns] = painter.paint(left, top, columns, rows)
            step()
        below.add_strip(strip)
        yield from _tiles(strip)


def _stored(level: _Level, below: _Level) -> Iterator[Pixels]:
    for strip in level.strips():
        below.add_strip(strip)
        yield from _tiles(strip)


def _tiles(strip: NDArray[np.uint8]) -> Iterator[Pixels]:
    """A strip cut into tiles; border tiles are filled with their last pixels, which JPEG codes best."""
    for left in range(0, strip.shape[1], _TILE_PX):
        tile = strip[:, left : left + _TILE_PX]
        missing = [(0, _TILE_PX - n) for n in tile.shape[:2]] + [(0, 0)] * (tile.ndim - 2)
        yield np.pad(tile, missing, mode="edge")


def _write_level(
    tiff: tifffile.TiffWriter, scene: Scene, downsample: int, shape: tuple[int, int], tiles: Iterator[Pixels]
) -> None:
    per_cm = 1e4 / (scene.mpp * downsample)
    tiff.write(
        data=tiles,
        shape=(*shape, 3),
        dtype=np.uint8,
        tile=(_TILE_PX, _TILE_PX),
        photometric="rgb",
        compression="jpeg",
        compressionargs={"level": _JPEG_QUALITY},
        subfiletype=0 if downsample == 1 else 1,
        resolution=(per_cm, per_cm),
        resolutionunit="CENTIMETER",
        description=f"synthetic H&E, seed {scene.seed}" if downsample == 1 else None,
        software="sampath_wsi",
        metadata=None,
    )


def _write_truth(path: Path, scene: Scene) -> None:
    width, height = scene.map_size_px

    def tiles() -> Iterator[Pixels]:
        for top in range(0, height, _TILE_PX):
            for left in range(0, width, _TILE_PX):
                part = scene.class_map(left, top, min(_TILE_PX, width - left), min(_TILE_PX, height - top))
                yield np.pad(part, [(0, _TILE_PX - n) for n in part.shape])

    per_cm = 1e4 / scene.map_mpp
    with _open(path) as tiff:
        tiff.write(
            data=tiles(),
            shape=(height, width),
            dtype=np.uint8,
            tile=(_TILE_PX, _TILE_PX),
            photometric="minisblack",
            compression="deflate",
            resolution=(per_cm, per_cm),
            resolutionunit="CENTIMETER",
            software="sampath_wsi",
            metadata=None,
        )
