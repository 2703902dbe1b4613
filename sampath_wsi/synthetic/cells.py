"""Cells of synthetic tissue: their kinds, and their places on a slide.

Cells sit on jittered lattices, one lattice for each kind, and whether a lattice point carries a cell is hashed from
its coordinates: any window finds the same cells.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from sampath_wsi.synthetic.noise import (
    Floats,
    Floats32,
    Textures,
    Window,
    derive_seed,
    level_line_angles,
    uniform_at,
)
from sampath_wsi.synthetic.scene import CLASSES, IMMUNE, NECROSIS, OTHER, STROMA, TRUTH_DOWNSAMPLE, TUMOR, Scene

LARGEST_CELL_UM = 13.0
"""No cell reaches further than this from its lattice point's cell; windows are padded by it."""

SHAPES = 2**20
"""Random numbers for a cell's shape are below this."""

_SHAPES_DRAWN = 48
_ANGLES = 32


@dataclass(frozen=True)
class CellKind:
    """One kind of cell: shape and stain of its nucleus (or body), and how densely it lies in each class."""

    name: str
    long_radius_um: tuple[float, float]
    axis_ratio: tuple[float, float]
    density: tuple[float, float]
    """Concentration of the dominant stain, least and most."""
    spacing_um: float
    share_by_class: dict[int, float]
    irregularity: float = 0.06
    rim: float = 0.25
    clumps: float = 0.15
    nucleoli: float = 0.0
    clearing_um: float = 0.0
    """Width of the pale rim (cytoplasm or shrinkage) around the nucleus."""
    jitter: float = 0.75
    """Range of a cell's position around its lattice point, in lattice steps from end to end."""
    eosin_left: float = 0.45
    """Share of the eosin of the ground that shows through the cell."""
    follows_fibres: bool = False
    red_cell: bool = False


_KINDS = (
    CellKind("fibroblast", (5.5, 10.0), (0.16, 0.30), (0.55, 0.85), 17.0, {STROMA: 0.42}, follows_fibres=True),
    CellKind("red cell", (3.0, 3.7), (0.8, 1.0), (0.40, 0.62), 6.7, {OTHER: 0.95}, rim=0.15, clumps=0.0, red_cell=True),
    CellKind(
        "tumour nucleus",
        (4.8, 7.6),
        (0.62, 0.95),
        (0.34, 0.62),
        12.6,
        {TUMOR: 0.92},
        irregularity=0.09,
        rim=0.4,
        clumps=0.28,
        nucleoli=0.5,
        clearing_um=2.5,
        jitter=0.62,
    ),
    CellKind(
        "lymphocyte",
        (2.9, 3.7),
        (0.85, 1.0),
        (0.75, 1.0),
        8.0,
        {IMMUNE: 0.93, STROMA: 0.03, TUMOR: 0.012, OTHER: 0.03},
        clumps=0.3,
        clearing_um=1.0,
    ),
    CellKind("debris", (0.5, 1.9), (0.5, 1.0), (0.5, 0.95), 5.5, {NECROSIS: 0.34}, irregularity=0.2, rim=0.0),
    CellKind(
        "ghost", (3.5, 6.0), (0.6, 1.0), (0.12, 0.22), 13.0, {NECROSIS: 0.5}, irregularity=0.12, rim=0.5, eosin_left=0.9
    ),
)


class Cell(NamedTuple):
    """A cell: its kind, its centre in level-0 px, its angle, and two random choices (shape: below SHAPES)."""

    kind: CellKind
    x_level0_px: int
    y_level0_px: int
    angle: float
    shape: int
    intensity: float


class Stamp(NamedTuple):
    """A cell to lay over the tissue, all ``(h, w)`` float32: cover in [0, 1], stain, and pale rim in [0, 1]."""

    cover: Floats32
    stain: Floats32
    clearing: Floats32


class StampSheet:
    """Pictures of cells at one resolution, drawn once for a slide."""

    def __init__(self, mpp: float, seed: int) -> None:
        self._mpp, self._seed = mpp, seed
        self._stamps: dict[tuple[str, int, int], Stamp] = {}

    def lay(self, cell: Cell, stains: Floats32, window: Window) -> None:
        """Lay a cell over the tissue.

        Parameters
        ----------
        stains
            ``(3, height, width)`` concentrations of the window, changed in place; the cell is clipped to it.
        """
        kind, stamp = cell.kind, self._stamp(cell)
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

    def _stamp(self, cell: Cell) -> Stamp:
        """Return the picture of a cell, turned to its angle (in steps of pi/32)."""
        turn = round(cell.angle / math.pi * _ANGLES) % _ANGLES
        shape = cell.shape % _SHAPES_DRAWN
        # A shape that need not follow anything has one angle of its own, which keeps the sheet small.
        turn = turn if cell.kind.follows_fibres else (shape * 7) % _ANGLES
        key = (cell.kind.name, shape, turn)
        if key not in self._stamps:
            self._stamps[key] = self._draw(cell.kind, shape, math.pi * turn / _ANGLES)
        return self._stamps[key]

    def _draw(self, kind: CellKind, shape: int, angle: float) -> Stamp:
        rng = np.random.default_rng(derive_seed(self._seed, "stamp", kind.name, shape))
        long_um = rng.uniform(*kind.long_radius_um)
        short_um = long_um * rng.uniform(*kind.axis_ratio)
        reach = math.ceil((long_um * (1 + 2 * kind.irregularity) + kind.clearing_um + 0.5) / self._mpp)
        y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1] * self._mpp
        along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
        polar = np.arctan2(across / short_um, along / long_um)
        radius = np.hypot(along / long_um, across / short_um)
        for order in (2, 3, 4, 5):
            bump = kind.irregularity * rng.normal() / order * 1.6
            radius = radius / (1 + bump * np.cos(order * polar + rng.uniform(0, 2 * math.pi)))
        inside_um = (1 - radius) * math.sqrt(long_um * short_um)
        cover = np.clip(inside_um / 0.5 + 0.5, 0, 1)
        clearing = np.clip(inside_um / kind.clearing_um + 1, 0, 1) if kind.clearing_um else np.zeros_like(cover)
        stain = np.full_like(radius, rng.uniform(*kind.density))
        if kind.red_cell:
            stain *= 0.82 + kind.rim * np.clip(radius, 0, 1) ** 2  # biconcave: paler in the middle
        else:
            stain *= 1 + kind.rim * np.exp(-(((inside_um - 0.5) / 0.55) ** 2))
            stain *= 1 + kind.clumps * self._clumps(rng, radius.shape)
            spots = np.zeros_like(stain)
            for _ in range(int(rng.integers(0, 3)) if kind.nucleoli else 0):
                cx, cy = rng.uniform(-0.45, 0.45, 2) * short_um
                spots += np.exp(-((along - cx) ** 2 + (across - cy) ** 2) / (2 * rng.uniform(0.45, 0.8) ** 2))
            stain += kind.nucleoli * spots
        return Stamp(*(a.astype(np.float32) for a in (cover, np.maximum(stain, 0.02), clearing)))

    def _clumps(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
        """Return chromatin: grains and clumps of about 1 um, mean 0, variance 1."""
        white = rng.standard_normal(shape)
        clumps = gaussian_filter(white, 0.28 / self._mpp) + 0.6 * gaussian_filter(white, 0.6 / self._mpp)
        result: Floats = clumps / max(float(clumps.std()), 1e-9)
        return result


def find_cells(
    scene: Scene, textures: Textures, labels: NDArray[np.uint8], map_corner_px: tuple[int, int], window: Window
) -> list[Cell]:
    """Find the cells that may touch a window, in an order that no window changes.

    Parameters
    ----------
    scene, textures
        The slide and its fibres, which some cells lie along.
    labels
        The class map under the window with a margin of at least :data:`LARGEST_CELL_UM`.
    map_corner_px
        (x, y) of the class map's pixel that ``labels`` begins at.
    window
        What is painted.
    """
    area = window.grow(math.ceil(LARGEST_CELL_UM / scene.mpp))
    present = set(np.unique(labels).tolist())
    found: list[Cell] = []
    for number, kind in enumerate(_KINDS):
        if present.isdisjoint(kind.share_by_class):
            continue
        seeds = [derive_seed(scene.seed, "cells", number, k) for k in range(6)]
        x_um, y_um, keep, turn, shape, intensity = _lattice(kind, seeds, area, scene.mpp)
        column = np.floor(x_um / scene.map_mpp).astype(np.int64) - map_corner_px[0]
        row = np.floor(y_um / scene.map_mpp).astype(np.int64) - map_corner_px[1]
        inside = (column >= 0) & (row >= 0) & (column < labels.shape[1]) & (row < labels.shape[0])
        share_by_label = np.array([kind.share_by_class.get(label, 0.0) for label in range(len(CLASSES) + 1)])
        share = np.zeros(len(inside))
        share[inside] = share_by_label[labels[row[inside], column[inside]]]
        taken = np.flatnonzero(keep < share)
        if not len(taken):
            continue
        angle = turn[taken] * math.pi
        if kind.follows_fibres:
            along = _fibre_angles(textures, labels.shape, map_corner_px)[row[taken], column[taken]]
            angle = along + 0.5 * (turn[taken] - 0.5)
        x_px, y_px = (np.floor(a[taken] / scene.mpp).astype(np.int64) for a in (x_um, y_um))
        shapes = (shape[taken] * SHAPES).astype(np.int64)
        found += [Cell(kind, *values) for values in zip(x_px, y_px, angle, shapes, intensity[taken], strict=True)]
    return found


def _lattice(kind: CellKind, seeds: list[int], area: Window, mpp: float) -> list[Floats]:
    """Return the points of a kind's lattice that may lie in an area.

    Returns
    -------
    x and y in micrometres, and four uniform numbers in [0, 1), each ``(points,)``.
    """

    def indices(first_px: int, count_px: int) -> NDArray[np.int64]:
        first, last = (math.floor(px * mpp / kind.spacing_um) for px in (first_px, first_px + count_px))
        return np.arange(first - 1, last + 2)

    grid_x, grid_y = (a.ravel() for a in np.meshgrid(indices(area.x, area.width), indices(area.y, area.height)))
    shift_x, shift_y, *draws = (uniform_at(grid_x, grid_y, seed) for seed in seeds)
    # Every other row is shifted by half a step: cells pack hexagonally, with jitter.
    x_um = (grid_x + 0.5 * (grid_y % 2) + 0.5 + kind.jitter * (shift_x - 0.5)) * kind.spacing_um
    y_um = (grid_y + 0.5 + kind.jitter * (shift_y - 0.5)) * kind.spacing_um
    return [x_um, y_um, *draws]


def _fibre_angles(textures: Textures, shape: tuple[int, ...], map_corner_px: tuple[int, int]) -> NDArray[np.floating]:
    """Return the direction of the fibres on the class map's pixels: across the gradient of their phase."""
    step = TRUTH_DOWNSAMPLE
    x, y = map_corner_px
    window = Window(x * step, y * step, shape[1] * step, shape[0] * step)
    return level_line_angles(textures.fibre_turns(window, step).astype(np.float64))
