"""Random fields and textures that are a function of position alone.

A value at a point depends on the seed and on the point, never on the window that is computed, so that neighbouring
blocks of a slide agree at their borders although each is computed by itself.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_A = np.uint64(0xBF58476D1CE4E5B9)
_MIX_B = np.uint64(0x94D049BB133111EB)
# A cubic B-spline with independent node values of variance 1 has this standard deviation in two dimensions.
_SPLINE_STD = 0.479
_PERIOD_PX = 1024
_SIGMA_UM = {"granular": 0.8, "medium": 2.2, "coarse": 7.0}
_BUNDLE_UM = 11.0
# All waves of a fibre repeat after so many turns (they have 1.73 and 3.9 waves a turn).
_FIBRE_TURNS = 100


class Window(NamedTuple):
    """A rectangle of level-0 pixels; it may reach beyond the slide."""

    x: int
    y: int
    width: int
    height: int

    def grow(self, margin: int) -> Window:
        """Return the window with a margin on all sides."""
        return Window(self.x - margin, self.y - margin, self.width + 2 * margin, self.height + 2 * margin)


def derive_seed(seed: int, *names: int | str) -> int:
    """Return a 63-bit seed for one use of a master seed, the same on every platform."""
    state = np.array([seed & 0xFFFFFFFFFFFFFFFF], np.uint64)
    with np.errstate(over="ignore"):
        for byte in "\x1f".join(map(str, names)).encode():
            state = _scramble(state + np.uint64(byte) * _GOLDEN)
    return int(state[0]) >> 1


def pixel_centres_um(first_px: int, count_px: int, mpp: float, step_px: int = 1) -> Floats:
    """Return the centres of every ``step_px``-th pixel along an axis, in micrometres."""
    centres: Floats = (first_px + np.arange(0, count_px, step_px, dtype=np.float64) + 0.5) * mpp
    return centres


def uniform_at(ix: NDArray[np.int64], iy: NDArray[np.int64], seed: int) -> Floats:
    """Return uniform numbers in [0, 1) that belong to lattice points (splitmix64 of the coordinates).

    Parameters
    ----------
    ix, iy
        Integer coordinates, broadcast against each other; negative ones are fine.
    """
    with np.errstate(over="ignore"):
        state = _scramble(np.asarray(ix, np.int64).astype(np.uint64) * _GOLDEN + np.uint64(seed))
        state = _scramble(state + np.asarray(iy, np.int64).astype(np.uint64) * _MIX_A)
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _scramble(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    state = (state ^ (state >> np.uint64(30))) * _MIX_A
    state = (state ^ (state >> np.uint64(27))) * _MIX_B
    return state ^ (state >> np.uint64(31))


def spline_weights(position: Floats) -> tuple[Floats, int]:
    """Return cubic B-spline weights of positions given in units of the node spacing.

    Returns
    -------
    ``(len(position), nodes)`` weights, and the index of the lattice node that the first column stands for.
    """
    base = np.floor(position).astype(np.int64)
    first = int(base.min()) - 1
    f = position - base
    taps = ((1 - f) ** 3 / 6, (3 * f**3 - 6 * f**2 + 4) / 6, (-3 * f**3 + 3 * f**2 + 3 * f + 1) / 6, f**3 / 6)
    weights = np.zeros((len(position), int(base.max()) - first + 3))
    rows = np.arange(len(position))
    for k, tap in enumerate(taps):
        weights[rows, base - 1 - first + k] = tap
    return weights, first


def smooth_noise(x_um: Floats, y_um: Floats, wavelength_um: float, seed: int) -> Floats:
    """Return smooth noise of mean 0 and variance 1 on the grid that two axes span.

    Parameters
    ----------
    x_um, y_um
        Coordinates of the columns and rows.
    wavelength_um
        Distance of the random nodes; structures are about this large.

    Returns
    -------
    ``(len(y_um), len(x_um))`` float64. Double precision, so that thresholds of the field fall alike in every
    window, in any order of summation of the matrix product.
    """
    across, first_x = spline_weights(x_um / wavelength_um)
    down, first_y = spline_weights(y_um / wavelength_um)
    nodes_x = np.arange(first_x, first_x + across.shape[1])
    nodes_y = np.arange(first_y, first_y + down.shape[1])
    nodes = uniform_at(nodes_x[None, :], nodes_y[:, None], seed) - 0.5
    result: Floats = (down @ nodes @ across.T) * (np.sqrt(12.0) / _SPLINE_STD)
    return result


def named_noise(seed: int, name: str, wavelength_um: float, x_um: Floats, y_um: Floats) -> Floats:
    """Return the :func:`smooth_noise` that a slide's seed has under a name."""
    return smooth_noise(x_um, y_um, wavelength_um, derive_seed(seed, "field", name))


def level_line_angles(field: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the direction of a field's level lines at every pixel, in radians."""
    down, across = np.gradient(field)
    angles: NDArray[np.floating] = np.arctan2(across, -down)
    return angles


class Textures:
    """Textures of the ground of one slide, each ``(height, width)`` for a window.

    Coarse ones are smooth noise, fine ones are cut out of periodic pictures.
    """

    def __init__(self, mpp: float, seed: int) -> None:
        self._mpp, self._seed = mpp, seed
        rng = np.random.default_rng(derive_seed(seed, "textures"))
        self._fibre_angle = float(rng.uniform(0, math.pi))
        self._periodic: dict[str, Floats32] = {}
        for name, sigma_um in _SIGMA_UM.items():
            white = rng.standard_normal((_PERIOD_PX, _PERIOD_PX), np.float32)
            smooth = gaussian_filter(white, sigma_um / mpp, mode="wrap")
            self._periodic[name] = smooth / smooth.std()
        grain = rng.standard_normal((_PERIOD_PX, _PERIOD_PX, 3), np.float32)
        self._grain: Floats32 = (grain + grain.mean(axis=2, keepdims=True)) * np.float32(0.9)

    def mottle(self, name: str, window: Window) -> Floats32:
        """Return a fine texture (``granular``, ``medium`` or ``coarse``) of mean 0 and variance 1.

        It repeats every 1024 px, which is not seen under the anatomy.
        """
        return _wrapped(self._periodic[name], window)

    def grain(self, window: Window) -> Floats32:
        """Return noise of the camera in grey levels, ``(height, width, 3)``."""
        return _wrapped(self._grain, window)

    def noise(self, name: str, wavelength_um: float, window: Window) -> Floats32:
        """Return smooth noise of mean 0 and variance 1."""
        return named_noise(self._seed, name, wavelength_um, *self._axes_um(window)).astype(np.float32)

    def lumina(self, window: Window) -> Floats32:
        """Return the small pale spaces in the tumour: 0 = none, to 0.8."""
        field = self.noise("lumen", 34, window)
        empty: Floats32 = np.clip((field - np.float32(2.25)) * np.float32(2.2), 0, 0.8)
        return empty

    def fibres(self, window: Window) -> Floats32:
        """Return wavy collagen: bundles of fibrils with pale clefts between, about 1 on average."""
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
        """Return the turns of the fibres' phase at every ``step_px``-th pixel: fibres run along its level lines."""
        x_um, y_um = self._axes_um(window, step_px)
        ramp = (x_um * math.cos(self._fibre_angle))[None, :] + (y_um * math.sin(self._fibre_angle))[:, None]
        turns = ramp / _BUNDLE_UM + 5.0 * named_noise(self._seed, "fibre course", 140, x_um, y_um)
        # Whole repeats do not show; single precision is enough for the rest.
        repeats = math.floor(float(turns.min()) / _FIBRE_TURNS)
        left: Floats32 = (turns - repeats * _FIBRE_TURNS).astype(np.float32)
        return left

    def _axes_um(self, window: Window, step_px: int = 1) -> tuple[Floats, Floats]:
        x_um = pixel_centres_um(window.x, window.width, self._mpp, step_px)
        return x_um, pixel_centres_um(window.y, window.height, self._mpp, step_px)


def _wrapped(texture: Floats32, window: Window) -> Floats32:
    """Return a window of a periodic texture."""
    rows = (window.y + np.arange(window.height)) % texture.shape[0]
    columns = (window.x + np.arange(window.width)) % texture.shape[1]
    part: Floats32 = texture[rows[:, None], columns[None, :]]
    return part
