"""Paints a synthetic slide in haematoxylin and eosin.

Stains are laid on as concentrations and turned into colours by Beer-Lambert's law, ``I = I0 * 10 ** -(c @ M)``, with
the optical-density vectors of the stains in M, as they are in transmitted light. Every texture is a function of
position, so that windows agree where they overlap.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from sampath_wsi.synthetic.cells import find_cells
from sampath_wsi.synthetic.noise import derive_seed, pixel_centres_um, spline_weights
from sampath_wsi.synthetic.scene import GLASS, IMMUNE, NECROSIS, OTHER, STROMA, TRUTH_DOWNSAMPLE, TUMOR, Scene
from sampath_wsi.synthetic.stamps import LARGEST_CELL_UM, Cell, StampSheet
from sampath_wsi.synthetic.textures import Floats32, Textures, Window

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
        self._textures = Textures(scene)
        self._stamps = StampSheet(scene.mpp, derive_seed(scene.seed, "stamps"))

    def paint(
        self, x_level0_px: int, y_level0_px: int, width_level0_px: int, height_level0_px: int
    ) -> NDArray[np.uint8]:
        """Pixels of a window, which may reach beyond the slide (glass goes on there).

        Returns
        -------
        ``(height, width, 3)`` uint8 RGB.
        """
        asked = Window(x_level0_px, y_level0_px, width_level0_px, height_level0_px)
        sigma_px = _BLUR_UM / self.scene.mpp
        pad = math.ceil(_BLUR_SIGMAS * sigma_px) + 1
        window = asked.grow(pad)
        labels, map_x, map_y = self._labels_around(window)
        rgb = np.empty((window.height, window.width, 3), np.float32)
        rgb[:] = self._glass
        if labels.any():
            rgb *= np.exp(self._optical_density(labels, map_x, map_y, window) * np.float32(-math.log(10)))
            for channel in range(3):
                rgb[..., channel] = gaussian_filter(rgb[..., channel], sigma_px, truncate=_BLUR_SIGMAS)
        rgb = rgb[pad:-pad, pad:-pad]
        rgb += self._textures.grain(asked)
        pixels: NDArray[np.uint8] = np.clip(rgb + np.float32(0.5), 0, 255).astype(np.uint8)
        return pixels

    def _labels_around(self, window: Window) -> tuple[NDArray[np.uint8], int, int]:
        """The class map under a window with a margin for cells, and the map pixel that it begins at."""
        margin = math.ceil(LARGEST_CELL_UM / self.scene.map_mpp) + _MAP_MARGIN_PX
        map_x, map_y = window.x // TRUTH_DOWNSAMPLE - margin, window.y // TRUTH_DOWNSAMPLE - margin
        right = -(-(window.x + window.width) // TRUTH_DOWNSAMPLE) + margin
        bottom = -(-(window.y + window.height) // TRUTH_DOWNSAMPLE) + margin
        return self.scene.class_map(map_x, map_y, right - map_x, bottom - map_y), map_x, map_y

    def _optical_density(self, labels: NDArray[np.uint8], map_x: int, map_y: int, window: Window) -> Floats32:
        stains = np.zeros((3, window.height, window.width), np.float32)
        for label, share in _shares(labels, map_x, map_y, window).items():
            self._lay_ground(label, share, stains, window)
        for cell in find_cells(self.scene, self._textures, labels, map_x, map_y, window):
            lay_cell(cell, self._stamps, stains, window)
        stains[0] *= self._strength[0]
        stains[1:] *= self._strength[1]
        stains *= 1 + np.float32(0.05) * self._textures.noise("thickness", 160, window)
        density: Floats32 = np.tensordot(stains, self._stains, axes=(0, 0))
        return density

    def _lay_ground(self, label: int, share: Floats32, stains: NDArray[np.float32], window: Window) -> None:
        texture = np.ones_like(share)
        for name, strength in zip(("granular", "medium", "coarse"), _MOTTLE[label], strict=True):
            if strength:
                texture += np.float32(strength) * self._textures.mottle(name, window)
        if label == STROMA:
            texture *= self._textures.fibres(window)
        elif label == TUMOR:
            texture *= 1 - self._textures.lumina(window)
        np.maximum(texture, np.float32(0.05), out=texture)
        texture *= share
        for stain, concentration in enumerate(_GROUND[label]):
            stains[stain] += np.float32(concentration) * texture


def lay_cell(cell: Cell, sheet: StampSheet, stains: NDArray[np.float32], window: Window) -> None:
    """Lay a cell over the tissue.

    Parameters
    ----------
    stains
        ``(3, height, width)`` concentrations of the window, changed in place; what lies outside it is left out.
    """
    kind, stamp = sheet.kinds[cell.kind], sheet.stamp(cell)
    size = stamp.cover.shape[0]
    left, top = cell.x_level0_px - size // 2 - window.x, cell.y_level0_px - size // 2 - window.y
    y0, y1 = max(0, top), min(window.height, top + size)
    x0, x1 = max(0, left), min(window.width, left + size)
    if y0 >= y1 or x0 >= x1:
        return
    part = np.s_[y0 - top : y1 - top, x0 - left : x1 - left]
    under = stains[:, y0:y1, x0:x1]
    cover, stain = stamp.cover[part], stamp.stain[part] * np.float32(0.8 + 0.4 * cell.intensity)
    if kind.clearing_um:
        under *= 1 - np.float32(0.30) * stamp.clearing[part]
    if kind.red_cell:
        under[:2] *= 1 - np.float32(0.7) * cover
        under[2] = np.maximum(under[2], cover * stain)
    else:
        under[1:] *= 1 - np.float32(1 - kind.eosin_left) * cover
        under[0] *= 1 - cover
        under[0] += cover * stain


def _shares(labels: NDArray[np.uint8], map_x: int, map_y: int, window: Window) -> dict[int, Floats32]:
    """How much each class that occurs takes part in each pixel, in [0, 1]: its region with soft borders."""
    # Level-0 pixel centres in units of map pixels, whose centres are the spline's nodes.
    across, first_x = spline_weights(pixel_centres_um(window.x, window.width, 1 / TRUTH_DOWNSAMPLE) - 0.5 - map_x)
    down, first_y = spline_weights(pixel_centres_um(window.y, window.height, 1 / TRUTH_DOWNSAMPLE) - 0.5 - map_y)
    part = labels[first_y : first_y + down.shape[1], first_x : first_x + across.shape[1]]
    rows, columns = down.astype(np.float32), across.astype(np.float32).T
    return {int(k): rows @ (part == k).astype(np.float32) @ columns for k in np.unique(part) if k != GLASS}
