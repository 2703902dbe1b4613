"""What the cells of a synthetic slide look like: small pictures of nuclei and red cells."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from sampath_wsi.synthetic.noise import derive_seed
from sampath_wsi.synthetic.scene import IMMUNE, NECROSIS, OTHER, STROMA, TUMOR

Floats32 = NDArray[np.float32]


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
    """How far a cell may lie from its lattice point, in lattice steps from end to end."""
    eosin_left: float = 0.45
    """Share of the eosin of the ground that shows through the cell."""
    follows_fibres: bool = False
    red_cell: bool = False


KINDS = (
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

LARGEST_CELL_UM = 13.0
"""No cell reaches further than this from its lattice point's cell; windows are padded by it."""

_SHAPES = 48
_ANGLES = 32


class Stamp(NamedTuple):
    """A cell to lay over the tissue, all ``(h, w)`` float32: cover in [0, 1], stain, and pale rim in [0, 1]."""

    cover: Floats32
    stain: Floats32
    clearing: Floats32


class Cell(NamedTuple):
    """A cell's place: kind (index in the sheet's kinds), centre in level-0 px, angle, and two random choices."""

    kind: int
    x_level0_px: int
    y_level0_px: int
    angle: float
    shape: int
    intensity: float


class StampSheet:
    """Pictures of every kind of cell at one resolution, drawn once for a slide."""

    def __init__(self, mpp: float, seed: int, kinds: Sequence[CellKind] = KINDS) -> None:
        self._mpp = mpp
        self._seed = seed
        self.kinds = kinds
        self._stamps: dict[tuple[int, int, int], Stamp] = {}

    def stamp(self, cell: Cell) -> Stamp:
        """The picture of a cell, turned to its angle (in steps of pi/32)."""
        turn = round(cell.angle / math.pi * _ANGLES) % _ANGLES
        shape = cell.shape % _SHAPES
        # A shape that need not follow anything has one angle of its own, which keeps the sheet small.
        turn = turn if self.kinds[cell.kind].follows_fibres else (shape * 7) % _ANGLES
        key = (cell.kind, shape, turn)
        if key not in self._stamps:
            self._stamps[key] = self._draw(self.kinds[cell.kind], shape, math.pi * turn / _ANGLES)
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
            stain += kind.nucleoli * self._nucleoli(rng, kind, along, across, short_um)
        return Stamp(*(a.astype(np.float32) for a in (cover, np.maximum(stain, 0.02), clearing)))

    def _clumps(self, rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Chromatin: grains and clumps of about 1 um, mean 0, variance 1."""
        white = rng.standard_normal(shape)
        clumps = gaussian_filter(white, 0.28 / self._mpp) + 0.6 * gaussian_filter(white, 0.6 / self._mpp)
        result: NDArray[np.float64] = clumps / max(float(clumps.std()), 1e-9)
        return result

    def _nucleoli(
        self,
        rng: np.random.Generator,
        kind: CellKind,
        along: NDArray[np.float64],
        across: NDArray[np.float64],
        short_um: float,
    ) -> NDArray[np.float64]:
        spots = np.zeros_like(along)
        for _ in range(int(rng.integers(0, 3)) if kind.nucleoli else 0):
            cx, cy = rng.uniform(-0.45, 0.45, 2) * short_um
            spots += np.exp(-((along - cx) ** 2 + (across - cy) ** 2) / (2 * rng.uniform(0.45, 0.8) ** 2))
        return spots
