"""Paints a synthetic slide in haematoxylin and eosin, and writes it as a pyramidal TIFF with its true class map.

Stains are laid on as concentrations and turned into colours by Beer-Lambert's law, ``I = I0 * 10 ** -(c @ M)``, with
the optical-density vectors of the stains in M, as they are in transmitted light. Every texture is a function of
position, so that windows agree where they overlap.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from sampath_wsi.files import written_aside
from sampath_wsi.progress import Progress, stepper
from sampath_wsi.synthetic.cells import LARGEST_CELL_UM, StampSheet, find_cells
from sampath_wsi.synthetic.noise import Floats32, Textures, Window, derive_seed, pixel_centres_um, spline_weights
from sampath_wsi.synthetic.scene import GLASS, IMMUNE, NECROSIS, OTHER, STROMA, TRUTH_DOWNSAMPLE, TUMOR, Scene
from sampath_wsi.tiff import TILE_PX, Pixels, write_levels

# Optical density of haematoxylin, eosin and haemoglobin in red, green and blue.
STAINS = np.array([[0.54, 0.74, 0.36], [0.17, 0.83, 0.50], [0.13, 0.80, 0.58]], dtype=np.float32)
# Concentrations (haematoxylin, eosin) of each class's ground substance.
_GROUND = {
    TUMOR: (0.115, 0.155),
    STROMA: (0.030, 0.165),
    IMMUNE: (0.120, 0.090),
    NECROSIS: (0.070, 0.185),
    OTHER: (0.015, 0.120),
}
# Strength of each class's mottling: granular (1 um), medium (2 um), coarse (7 um).
_MOTTLE = {
    TUMOR: (0.10, 0.10, 0.08),
    STROMA: (0.00, 0.10, 0.08),
    IMMUNE: (0.12, 0.10, 0.08),
    NECROSIS: (0.20, 0.20, 0.16),
    OTHER: (0.00, 0.30, 0.08),
}
_BLUR_UM = 0.17
_BLUR_SIGMAS = 4
_MAP_MARGIN_PX = 4
_LEVEL_STEP = 4
_JPEG_QUALITY = 85
_PAINT_PX = 1024
_SMALLEST_LEVEL_PX = 256


class Painter:
    """Paints any window of a scene.

    Parameters
    ----------
    scene
        The slide; its seed also draws the stain variation and the cells.
    """

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        rng = np.random.default_rng(derive_seed(scene.seed, "stain"))
        self._stains = STAINS * rng.normal(1, 0.04, STAINS.shape).astype(np.float32)
        self._strength = rng.uniform(0.85, 1.18, 2).astype(np.float32)
        self._glass = (rng.uniform(240, 247) + rng.uniform(-1, 1, 3)).astype(np.float32)
        self._textures = Textures(scene.mpp, scene.seed)
        self._stamps = StampSheet(scene.mpp, derive_seed(scene.seed, "stamps"))

    def paint(self, x_level0_px: int, y_level0_px: int, width_level0_px: int, height_level0_px: int) -> Pixels:
        """Paint a window, which may reach beyond the slide (glass goes on there).

        Returns
        -------
        ``(height, width, 3)`` uint8 RGB.
        """
        asked = Window(x_level0_px, y_level0_px, width_level0_px, height_level0_px)
        sigma_px = _BLUR_UM / self.scene.mpp
        pad = math.ceil(_BLUR_SIGMAS * sigma_px) + 1
        window = asked.grow(pad)
        labels, map_corner_px = self._labels_around(window)
        rgb = np.empty((window.height, window.width, 3), np.float32)
        rgb[:] = self._glass
        if labels.any():
            rgb *= np.exp(self._optical_density(labels, map_corner_px, window) * np.float32(-math.log(10)))
            for channel in range(3):
                rgb[..., channel] = gaussian_filter(rgb[..., channel], sigma_px, truncate=_BLUR_SIGMAS)
        rgb = rgb[pad:-pad, pad:-pad]
        rgb += self._textures.grain(asked)
        pixels: Pixels = np.clip(rgb + np.float32(0.5), 0, 255).astype(np.uint8)
        return pixels

    def _labels_around(self, window: Window) -> tuple[NDArray[np.uint8], tuple[int, int]]:
        """Return the class map under a window with a margin for cells, and the map pixel (x, y) that it begins at."""
        margin = math.ceil(LARGEST_CELL_UM / self.scene.map_mpp) + _MAP_MARGIN_PX
        map_x, map_y = window.x // TRUTH_DOWNSAMPLE - margin, window.y // TRUTH_DOWNSAMPLE - margin
        right = -(-(window.x + window.width) // TRUTH_DOWNSAMPLE) + margin
        bottom = -(-(window.y + window.height) // TRUTH_DOWNSAMPLE) + margin
        return self.scene.class_map(map_x, map_y, right - map_x, bottom - map_y), (map_x, map_y)

    def _optical_density(self, labels: NDArray[np.uint8], map_corner_px: tuple[int, int], window: Window) -> Floats32:
        stains = np.zeros((3, window.height, window.width), np.float32)
        for label, share in _shares(labels, map_corner_px, window).items():
            texture = self._ground_texture(label, window) * share
            for stain, concentration in enumerate(_GROUND[label]):
                stains[stain] += np.float32(concentration) * texture
        for cell in find_cells(self.scene, self._textures, labels, map_corner_px, window):
            self._stamps.lay(cell, stains, window)
        stains[0] *= self._strength[0]
        stains[1:] *= self._strength[1]
        stains *= 1 + np.float32(0.05) * self._textures.noise("thickness", 160, window)
        density: Floats32 = np.tensordot(stains, self._stains, axes=(0, 0))
        return density

    def _ground_texture(self, label: int, window: Window) -> Floats32:
        texture = np.ones((window.height, window.width), np.float32)
        for name, strength in zip(("granular", "medium", "coarse"), _MOTTLE[label], strict=True):
            if strength:
                texture += np.float32(strength) * self._textures.mottle(name, window)
        if label == STROMA:
            texture *= self._textures.fibres(window)
        elif label == TUMOR:
            texture *= 1 - self._textures.lumina(window)
        return np.maximum(texture, np.float32(0.05))


def _shares(labels: NDArray[np.uint8], map_corner_px: tuple[int, int], window: Window) -> dict[int, Floats32]:
    """Return how much each class that occurs takes part in each pixel, in [0, 1]: its region with soft borders."""
    # Level-0 pixel centres in units of map pixels, whose centres are the spline's nodes.
    map_x, map_y = map_corner_px
    across, first_x = spline_weights(pixel_centres_um(window.x, window.width, 1 / TRUTH_DOWNSAMPLE) - 0.5 - map_x)
    down, first_y = spline_weights(pixel_centres_um(window.y, window.height, 1 / TRUTH_DOWNSAMPLE) - 0.5 - map_y)
    part = labels[first_y : first_y + down.shape[1], first_x : first_x + across.shape[1]]
    rows, columns = down.astype(np.float32), across.astype(np.float32).T
    return {int(k): rows @ (part == k).astype(np.float32) @ columns for k in np.unique(part) if k != GLASS}


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
    """Make a synthetic H&E slide and its true class map, in memory that does not grow with its height.

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
    _write_slide(Path(path), scene, progress)
    if truth_path is not None:
        _write_truth(Path(truth_path), scene)
    return scene


def _write_slide(path: Path, scene: Scene, progress: Progress | None) -> None:
    # Rounded down, as scanners do; the last pixels of a level that make no whole pixel of the next are left out.
    shapes = [(scene.height_px, scene.width_px, 3)]
    while len(shapes) == 1 or min(shapes[-1][:2]) >= _LEVEL_STEP * _SMALLEST_LEVEL_PX:
        shapes.append((shapes[-1][0] // _LEVEL_STEP, shapes[-1][1] // _LEVEL_STEP, 3))

    with written_aside(path) as aside, tifffile.TiffWriter(aside, bigtiff=True) as tiff:

        def write_level(level: int, tiles: Iterator[Pixels]) -> None:
            description = None if level else f"synthetic H&E, seed {scene.seed}"
            _write(tiff, map(_padded, tiles), shapes[level], scene.mpp * _LEVEL_STEP**level, level, description)

        write_levels(shapes, _painted(Painter(scene), progress), _shrunk, write_level, path.parent)


def _painted(painter: Painter, progress: Progress | None) -> Iterator[Pixels]:
    """Yield level 0 in strips one tile high."""
    width, height = painter.scene.width_px, painter.scene.height_px
    step = stepper(progress, -(-height // TILE_PX) * -(-width // _PAINT_PX), "parts painted")
    for top in range(0, height, TILE_PX):
        strip = np.empty((min(TILE_PX, height - top), width, 3), np.uint8)
        for left in range(0, width, _PAINT_PX):
            columns = min(_PAINT_PX, width - left)
            strip[:, left : left + columns] = painter.paint(left, top, columns, len(strip))
            step()
        yield strip


def _shrunk(strip: Pixels) -> Pixels:
    """Return the averages of 4 x 4 pixels, rounded."""
    rows, columns = (side // _LEVEL_STEP for side in strip.shape[:2])
    part = strip[: rows * _LEVEL_STEP, : columns * _LEVEL_STEP]
    total = part.reshape(rows, _LEVEL_STEP, columns, _LEVEL_STEP, 3).sum(axis=(1, 3), dtype=np.uint16)
    average: Pixels = ((total + _LEVEL_STEP**2 // 2) // _LEVEL_STEP**2).astype(np.uint8)
    return average


def _padded(tile: Pixels) -> Pixels:
    """Return a whole tile, filled with the last pixels, which JPEG codes best."""
    height, width = tile.shape[:2]
    return np.pad(tile, ((0, TILE_PX - height), (0, TILE_PX - width), (0, 0)), mode="edge")


def _write_truth(path: Path, scene: Scene) -> None:
    width, height = scene.map_size_px
    tiles = (
        scene.class_map(left, top, min(TILE_PX, width - left), min(TILE_PX, height - top))
        for top in range(0, height, TILE_PX)
        for left in range(0, width, TILE_PX)
    )
    with written_aside(path) as aside, tifffile.TiffWriter(aside, bigtiff=True) as tiff:
        _write(tiff, tiles, (height, width), scene.map_mpp)


def _write(
    tiff: tifffile.TiffWriter,
    tiles: Iterator[Pixels],
    shape: tuple[int, ...],
    mpp: float,
    level: int = 0,
    description: str | None = None,
) -> None:
    """Write an image of RGB as JPEG, or one of labels without loss."""
    rgb = len(shape) == 3
    tiff.write(
        data=tiles,
        shape=shape,
        dtype=np.uint8,
        tile=(TILE_PX, TILE_PX),
        photometric="rgb" if rgb else "minisblack",
        compression="jpeg" if rgb else "deflate",
        compressionargs={"level": _JPEG_QUALITY} if rgb else None,
        subfiletype=min(level, 1) if rgb else None,
        resolution=(1e4 / mpp, 1e4 / mpp),
        resolutionunit="CENTIMETER",
        description=description,
        software="sampath_wsi",
        metadata=None,
    )
