"""Large H&E-like slides within seconds: a pyramidal TIFF of JPEG tiles as scanners write it, 0.25 um/px.

One square millimetre is painted (see sampath_wsi.synthetic) and repeated by mirroring, so that there are no seams; the
outline of the tissue is drawn anew for each size, and is the same shape at every size. Tiles inside are coded once.

    python benchmarks/big_slide.py slide.tif --width 20000 --height 20000
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from sampath_wsi.files import written_aside
from sampath_wsi.synthetic import Painter, Scene
from sampath_wsi.synthetic.noise import smooth_noise

MPP = 0.25
_TILE_PX = 512
_BLOCK_PX = 4096
_SCENE_PX = 16384
_DOWNSAMPLES = (1, 4, 16)
_GLASS = 243
_JPEG_QUALITY = 85
# The outline is looked at in so many places of a tile along each axis before the tile is taken for plain.
_PROBES = 17

Pixels = NDArray[np.uint8]


def big_slide(folder: Path, width_px: int, height_px: int, tissue_share: float = 0.4) -> Path:
    """The slide of a size in a folder, made if it is not there yet."""
    path = folder / f"{width_px}x{height_px}_{round(100 * tissue_share)}.tif"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        # In a process of its own: a child's peak memory counts what its parent held when it was started.
        size = ("--width", str(width_px), "--height", str(height_px))
        subprocess.run([sys.executable, __file__, str(path), *size, "--tissue", str(tissue_share)], check=True)
    return path


def write_big_slide(path: Path, width_px: int, height_px: int, tissue_share: float = 0.4) -> None:
    """Write a slide of which so much is tissue; memory does not grow with its size."""
    outline = _Outline(width_px, height_px, tissue_share)
    with written_aside(path) as aside, tifffile.TiffWriter(aside, bigtiff=True) as tiff:
        for downsample in _DOWNSAMPLES:
            width, height = width_px // downsample, height_px // downsample
            tiff.write(
                data=_tiles(outline, downsample, width, height),
                shape=(height, width, 3),
                dtype=np.uint8,
                tile=(_TILE_PX, _TILE_PX),
                photometric="ycbcr",
                subsampling=(2, 2),
                compression="jpeg",
                subfiletype=int(downsample > 1),
                resolution=(1e4 / (MPP * downsample),) * 2,
                resolutionunit="CENTIMETER",
                metadata=None,
            )


class _Outline:
    """The tissue's outline: a round shape with a ragged border, sized by its share of the slide."""

    def __init__(self, width_px: int, height_px: int, tissue_share: float) -> None:
        self._size_px = np.array([width_px, height_px])
        self._limit = 0.0
        x, y = ((np.arange(256) + 0.5) * side / 256 for side in (width_px, height_px))
        self._limit = float(np.quantile(self.depth(x, y), 1 - tissue_share))

    def depth(self, x_level0_px: NDArray[np.float64], y_level0_px: NDArray[np.float64]) -> NDArray[np.float64]:
        """Positive where tissue is, on the grid of two axes."""
        x, y = x_level0_px / self._size_px[0], y_level0_px / self._size_px[1]
        depth = -np.hypot(2 * x[None, :] - 1, 2 * y[:, None] - 1)
        depth += 0.12 * smooth_noise(x, y, 1 / 3, 1) + 0.03 * smooth_noise(x, y, 1 / 11, 2)
        ragged_px = 60.0
        depth += ragged_px / self._size_px.min() * smooth_noise(x_level0_px, y_level0_px, 300.0, 3)
        result: NDArray[np.float64] = depth - self._limit
        return result


def _tiles(outline: _Outline, downsample: int, width: int, height: int) -> Iterator[bytes]:
    for top in range(0, height, _TILE_PX):
        for left in range(0, width, _TILE_PX):
            probes = (np.linspace(start, start + _TILE_PX, _PROBES) * downsample for start in (left, top))
            inside = outline.depth(*probes) > 0
            if not inside.any():
                yield _glass_tile()
            elif inside.all():
                period = 2 * _BLOCK_PX // downsample
                yield _tissue_tile(downsample, left % period, top % period)
            else:
                centres = ((start + np.arange(_TILE_PX) + 0.5) * downsample for start in (left, top))
                is_tissue = outline.depth(*centres) > 0
                yield _encode(np.where(is_tissue[..., None], _tissue(downsample, left, top), np.uint8(_GLASS)))


@cache
def _glass_tile() -> bytes:
    return _encode(np.full((_TILE_PX, _TILE_PX, 3), _GLASS, np.uint8))


@cache
def _tissue_tile(downsample: int, left: int, top: int) -> bytes:
    return _encode(_tissue(downsample, left, top))


def _tissue(downsample: int, left: int, top: int) -> Pixels:
    """Pixels of a tile that is tissue all over, the block mirrored in both directions."""
    block = _block(downsample)
    side = len(block)
    rows, columns = ((start + np.arange(_TILE_PX)) % (2 * side) for start in (top, left))
    return block[np.minimum(rows, 2 * side - 1 - rows)[:, None], np.minimum(columns, 2 * side - 1 - columns)]


@cache
def _block(downsample: int) -> Pixels:
    if downsample == 1:
        corner = (_SCENE_PX - _BLOCK_PX) // 2
        painter, strip_px = Painter(Scene(_SCENE_PX, _SCENE_PX, MPP)), 512
        strips = [painter.paint(corner, corner + y, _BLOCK_PX, strip_px) for y in range(0, _BLOCK_PX, strip_px)]
        return np.concatenate(strips)
    side = _BLOCK_PX // downsample
    return _block(1).reshape(side, downsample, side, downsample, 3).mean((1, 3)).astype(np.uint8)


def _encode(pixels: Pixels) -> bytes:
    return bytes(
        imagecodecs.jpeg8_encode(
            pixels, level=_JPEG_QUALITY, colorspace="RGB", outcolorspace="YCBCR", subsampling="420"
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slide", type=Path)
    parser.add_argument("--width", type=int, default=20_000)
    parser.add_argument("--height", type=int, default=20_000)
    parser.add_argument("--tissue", type=float, default=0.4, help="share of the slide that is tissue")
    arguments = parser.parse_args()
    write_big_slide(arguments.slide, arguments.width, arguments.height, arguments.tissue)


if __name__ == "__main__":
    main()
