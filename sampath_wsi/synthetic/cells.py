"""Where the cells of a synthetic slide lie.

Cells sit on jittered lattices, one lattice for each kind, and whether a lattice point carries a cell is hashed from
its coordinates: any window finds the same cells.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sampath_wsi.synthetic.noise import Floats, derive_seed, uniform_at
from sampath_wsi.synthetic.scene import CLASSES, TRUTH_DOWNSAMPLE, Scene
from sampath_wsi.synthetic.stamps import KINDS, LARGEST_CELL_UM, Cell
from sampath_wsi.synthetic.textures import Textures, Window


def find_cells(
    scene: Scene, textures: Textures, labels: NDArray[np.uint8], map_x: int, map_y: int, window: Window
) -> list[Cell]:
    """Cells that may touch a window, in an order that no window changes.

    Parameters
    ----------
    scene, textures
        The slide and its fibres, which some cells lie along.
    labels
        The class map under the window with a margin of at least :data:`LARGEST_CELL_UM`.
    map_x, map_y
        The class map's pixel that ``labels`` begins at.
    window
        What is painted.
    """
    area = window.grow(math.ceil(LARGEST_CELL_UM / scene.mpp))
    present = set(np.unique(labels).tolist())
    found: list[Cell] = []
    for number, kind in enumerate(KINDS):
        if present.isdisjoint(kind.share_by_class):
            continue
        drawn = _lattice(number, scene, area)
        column = np.floor(drawn.x_um / scene.map_mpp).astype(np.int64) - map_x
        row = np.floor(drawn.y_um / scene.map_mpp).astype(np.int64) - map_y
        inside = (column >= 0) & (row >= 0) & (column < labels.shape[1]) & (row < labels.shape[0])
        share_by_label = np.array([kind.share_by_class.get(label, 0.0) for label in range(len(CLASSES) + 1)])
        share = np.zeros(len(inside))
        share[inside] = share_by_label[labels[row[inside], column[inside]]]
        taken = drawn.keep < share
        if not taken.any():
            continue
        drawn, row, column = _Candidates(*(a[taken] for a in drawn)), row[taken], column[taken]
        angle = drawn.angle * math.pi
        if kind.follows_fibres:
            angle = _fibre_angles(textures, labels.shape, map_x, map_y)[row, column] + 0.5 * (drawn.angle - 0.5)
        x_px, y_px = (np.floor(a / scene.mpp).astype(np.int64) for a in (drawn.x_um, drawn.y_um))
        shape = (drawn.shape * 2**20).astype(np.int64)
        found += [Cell(number, *values) for values in zip(x_px, y_px, angle, shape, drawn.intensity, strict=True)]
    return found


class _Candidates(NamedTuple):
    """Lattice points of one kind: centre, and uniform numbers in [0, 1), each of shape (candidates,)."""

    x_um: Floats
    y_um: Floats
    keep: Floats
    angle: Floats
    shape: Floats
    intensity: Floats


def _lattice(number: int, scene: Scene, area: Window) -> _Candidates:
    """Candidates of one kind whose centres may lie in an area."""
    spacing_um, jitter = KINDS[number].spacing_um, KINDS[number].jitter

    def indices(first_px: int, count_px: int) -> NDArray[np.int64]:
        first, last = (math.floor(px * scene.mpp / spacing_um) for px in (first_px, first_px + count_px))
        return np.arange(first - 1, last + 2)

    grid_x, grid_y = (a.ravel() for a in np.meshgrid(indices(area.x, area.width), indices(area.y, area.height)))
    draws = [uniform_at(grid_x, grid_y, derive_seed(scene.seed, "cells", number, k)) for k in range(6)]
    # Every other row is shifted by half a step: cells pack hexagonally, with jitter.
    x_um = (grid_x + 0.5 * (grid_y % 2) + 0.5 + jitter * (draws[0] - 0.5)) * spacing_um
    y_um = (grid_y + 0.5 + jitter * (draws[1] - 0.5)) * spacing_um
    return _Candidates(x_um, y_um, *draws[2:])


def _fibre_angles(textures: Textures, shape: tuple[int, ...], map_x: int, map_y: int) -> Floats:
    """Direction of the fibres on the class map's pixels: across the gradient of their phase."""
    step = TRUTH_DOWNSAMPLE
    turns = textures.fibre_turns(Window(map_x * step, map_y * step, shape[1] * step, shape[0] * step), step)
    down, across = np.gradient(turns.astype(np.float64))
    angles: Floats = np.arctan2(across, -down)
    return angles
