"""Textures of a synthetic slide's ground: grain of the camera, mottling, collagen fibres, lumina.

All are functions of position: coarse ones are smooth noise, fine ones are cut out of periodic pictures.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from sampath_wsi.synthetic.noise import derive_seed, pixel_centres_um
from sampath_wsi.synthetic.scene import Scene

Floats32 = NDArray[np.float32]

_PERIOD_PX = 1024
_SIGMA_UM = {"granular": 0.8, "medium": 2.2, "coarse": 7.0}
_BUNDLE_UM = 11.0
_FIBRE_TURNS = 100
"""Turns after which all of a fibre's waves repeat (1.73 and 3.9 waves a turn)."""


class Window(NamedTuple):
    """A rectangle of level-0 pixels; it may reach beyond the slide."""

    x: int
    y: int
    width: int
    height: int

    def grow(self, margin: int) -> Window:
        """The window with a margin on all sides."""
        return Window(self.x - margin, self.y - margin, self.width + 2 * margin, self.height + 2 * margin)


class Textures:
    """The textures of one scene, each of shape ``(height, width)`` for a window."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        rng = np.random.default_rng(derive_seed(scene.seed, "textures"))
        self._fibre_angle = float(rng.uniform(0, math.pi))
        self._periodic: dict[str, Floats32] = {}
        for name, sigma_um in _SIGMA_UM.items():
            white = rng.standard_normal((_PERIOD_PX, _PERIOD_PX), np.float32)
            smooth = gaussian_filter(white, sigma_um / scene.mpp, mode="wrap")
            self._periodic[name] = smooth / smooth.std()
        grain = rng.standard_normal((_PERIOD_PX, _PERIOD_PX, 3), np.float32)
        self._grain: Floats32 = (grain + grain.mean(axis=2, keepdims=True)) * np.float32(0.9)

    def mottle(self, name: str, window: Window) -> Floats32:
        """Fine texture (``granular``, ``medium`` or ``coarse``) of mean 0 and variance 1.

        It repeats every 1024 px, which is not seen under the anatomy.
        """
        return _wrapped(self._periodic[name], window)

    def grain(self, window: Window) -> Floats32:
        """Noise of the camera in grey levels, ``(height, width, 3)``."""
        return _wrapped(self._grain, window)

    def noise(self, name: str, wavelength_um: float, window: Window) -> Floats32:
        """Smooth noise of mean 0 and variance 1."""
        x_um = pixel_centres_um(window.x, window.width, self._scene.mpp)
        y_um = pixel_centres_um(window.y, window.height, self._scene.mpp)
        return self._scene.noise(name, wavelength_um, x_um, y_um).astype(np.float32)

    def lumina(self, window: Window) -> Floats32:
        """Small pale spaces in the tumour: 0 = none, to 0.8."""
        field = self.noise("lumen", 34, window)
        empty: Floats32 = np.clip((field - np.float32(2.25)) * np.float32(2.2), 0, 0.8)
        return empty

    def fibres(self, window: Window) -> Floats32:
        """Wavy collagen: bundles of fibrils with pale clefts between, about 1 on average."""
        one = np.float32
        turns = self.fibre_turns(window)
        wobble, strands = self.noise("fibre wobble", 24, window), self.noise("fibre strands", 75, window)
        cycle = one(2 * math.pi)
        bundles = np.cos(cycle * (turns + one(0.35) * wobble + one(0.06) * self.mottle("medium", window)))
        thin = np.cos(cycle * (one(1.73) * turns + one(0.5) * wobble + one(0.5) * strands))
        fibrils = np.cos(cycle * (one(3.9) * turns + one(0.9) * wobble + one(0.18) * self.mottle("medium", window)))
        # Clefts open where a bundle and a thinner strand part together, and only in some places.
        parting = np.clip(-bundles - one(0.7) * thin - one(0.85) + one(0.3) * strands, 0, 1)
        pale = np.minimum(one(1.3) * parting * np.clip(one(0.3) + one(0.5) * strands, 0, 1), one(0.85))
        weave = 1 + one(0.10) * (bundles + thin + fibrils + strands)
        woven: Floats32 = weave * (1 - pale)
        return woven

    def fibre_turns(self, window: Window, step_px: int = 1) -> Floats32:
        """Turns of the fibres' phase at every ``step_px``-th pixel: fibres run along its level lines."""
        x_um = pixel_centres_um(window.x, window.width, self._scene.mpp, step_px)
        y_um = pixel_centres_um(window.y, window.height, self._scene.mpp, step_px)
        ramp = (x_um * math.cos(self._fibre_angle))[None, :] + (y_um * math.sin(self._fibre_angle))[:, None]
        turns = ramp / _BUNDLE_UM + 5.0 * self._scene.noise("fibre course", 140, x_um, y_um)
        # Single precision is enough for what is left without whole repeats, which do not show.
        repeats = math.floor(float(turns.min()) / _FIBRE_TURNS)
        left: Floats32 = (turns - repeats * _FIBRE_TURNS).astype(np.float32)
        return left


def _wrapped(texture: Floats32, window: Window) -> Floats32:
    """A window of a periodic texture."""
    rows = (window.y + np.arange(window.height)) % texture.shape[0]
    columns = (window.x + np.arange(window.width)) % texture.shape[1]
    part: Floats32 = texture[rows[:, None], columns[None, :]]
    return part
