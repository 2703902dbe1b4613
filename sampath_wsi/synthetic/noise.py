"""Smooth random fields that are a function of position alone.

A field's value at a point depends on the seed and on the point, never on the window that is computed, so that
neighbouring blocks of a slide agree at their borders although each is computed by itself.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_A = np.uint64(0xBF58476D1CE4E5B9)
_MIX_B = np.uint64(0x94D049BB133111EB)
# A cubic B-spline with independent node values of variance 1 has this standard deviation in two dimensions.
_SPLINE_STD = 0.479


def derive_seed(seed: int, *names: int | str) -> int:
    """A 63-bit seed for one use of a master seed; the same names give the same seed on every platform."""
    state = np.array([seed & 0xFFFFFFFFFFFFFFFF], np.uint64)
    with np.errstate(over="ignore"):
        for byte in "\x1f".join(map(str, names)).encode():
            state = _scramble(state + np.uint64(byte) * _GOLDEN)
    return int(state[0]) >> 1


def pixel_centres_um(first_px: int, count_px: int, mpp: float, step_px: int = 1) -> Floats:
    """Coordinates of the centres of every ``step_px``-th pixel along an axis, in micrometres."""
    centres: Floats = (first_px + np.arange(0, count_px, step_px, dtype=np.float64) + 0.5) * mpp
    return centres


def uniform_at(ix: NDArray[np.int64], iy: NDArray[np.int64], seed: int) -> Floats:
    """Uniform numbers in [0, 1) that belong to lattice points (splitmix64 of the coordinates).

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
    """Cubic B-spline weights of positions given in units of the node spacing.

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
    """Smooth noise of mean 0 and variance 1 on the grid that two axes span.

    Parameters
    ----------
    x_um, y_um
        Coordinates of the columns and rows.
    wavelength_um
        Distance of the random nodes; structures are about this large.

    Returns
    -------
    ``(len(y_um), len(x_um))`` float64. Double precision, so that thresholds of the field fall alike in every
    window, whatever order the matrix product sums in.
    """
    across, first_x = spline_weights(x_um / wavelength_um)
    down, first_y = spline_weights(y_um / wavelength_um)
    nodes_x = np.arange(first_x, first_x + across.shape[1])
    nodes_y = np.arange(first_y, first_y + down.shape[1])
    nodes = uniform_at(nodes_x[None, :], nodes_y[:, None], seed) - 0.5
    result: Floats = (down @ nodes @ across.T) * (np.sqrt(12.0) / _SPLINE_STD)
    return result
