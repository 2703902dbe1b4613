"""Polygons of very many vertices cut into pieces that QuPath reads and draws at once.

The cuts lie on a fixed grid of the map, halved along x and y in turn until every piece is small enough: so a piece is
the same for the same polygon, whatever its neighbours, workers and chunks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import MultiPolygon, Polygon

from sampath_wsi.qupath import DECIMALS, rounded_for_qupath


@dataclass(frozen=True)
class Cell:
    """A rectangle of whole map pixels with sides of powers of two."""

    x: int
    y: int
    width: int
    height: int

    def divided(self, times: int) -> list[Cell]:
        """Halved so many times, the longer side first, as far as there are pixels."""
        if times == 0 or self.width * self.height == 1:
            return [self]
        width, height = self.width, self.height
        if height > width:
            halves = [Cell(self.x, y, width, height // 2) for y in (self.y, self.y + height // 2)]
        else:
            halves = [Cell(x, self.y, width // 2, height) for x in (self.x, self.x + width // 2)]
        return [part for half in halves for part in half.divided(times - 1)]


@dataclass(frozen=True)
class Lattice:
    """The pixel corners of the map in the frame of the file: corner ``(x, y)`` lies at ``corner * scale + offset``."""

    scale_level0_px_per_map_px: tuple[float, float]
    offset_level0_px: tuple[float, float]

    def box_level0_px(self, cell: Cell) -> Polygon:
        """A rectangle of map pixels, rounded as the coordinates of the file are, so that cuts need no more rounding."""
        corners = np.multiply(
            [(cell.x, cell.y), (cell.x + cell.width, cell.y + cell.height)], self.scale_level0_px_per_map_px
        )
        (left, top), (right, bottom) = np.round(corners + self.offset_level0_px, DECIMALS).tolist()
        box: Polygon = shapely.box(left, top, right, bottom)
        return box

    def to_map_px(self, x_level0_px: float, y_level0_px: float) -> tuple[float, float]:
        """The inverse."""
        (sx, sy), (x, y) = self.scale_level0_px_per_map_px, self.offset_level0_px
        return (x_level0_px - x) / sx, (y_level0_px - y) / sy


@dataclass(frozen=True)
class Piece:
    """A part of a polygon, ready to be written, and the corner ``x,y`` and size of its cell in map pixels."""

    place: str
    geometry: Polygon | MultiPolygon
    area_px2: float


def cut(polygon: Polygon | MultiPolygon, lattice: Lattice, max_vertices: int) -> list[Piece]:
    """Cut a polygon into pieces of at most ``max_vertices`` each, row by row of the grid of cells that this takes.

    The pieces cover the polygon without gaps and overlaps, but for the rounding to hundredths of a pixel. A piece has
    more vertices only if a single map pixel holds as many, which no polygon of a map does.

    Parameters
    ----------
    polygon
        Valid, in level-0 pixels of the frame of the file.
    max_vertices
        As QuPath counts: a ring's first vertex again at its end.
    """
    pieces: list[Piece] = []
    waiting = [(cell, polygon) for cell in reversed(_first_cells(polygon, lattice))]
    while waiting:
        cell, whole = waiting.pop()
        box = lattice.box_level0_px(cell)
        part = whole if box.covers(shapely.box(*whole.bounds)) else _areas(shapely.intersection(whole, box))
        if part is None:
            continue
        excess = shapely.get_num_coordinates(part) / max_vertices
        if excess > 1 and cell.width * cell.height > 1:
            # As many cells at once as it will take at least: every cut looks at the whole part again.
            smaller = cell.divided(max(1, int(math.log2(excess))))
            waiting.extend((each, part) for each in reversed(smaller))
            continue
        (geometry,) = rounded_for_qupath(_single(part))
        if geometry is not None:
            place = f"{cell.x},{cell.y},{cell.width},{cell.height}"
            pieces.append(Piece(place, geometry, float(part.area)))
    return pieces


def _first_cells(polygon: Polygon | MultiPolygon, lattice: Lattice) -> list[Cell]:
    """The 2 x 2 cells that cover a polygon: squares on the grid of their own size, which is a power of two."""
    left, top, right, bottom = polygon.bounds
    x0, y0 = (math.floor(v + 1e-6) for v in lattice.to_map_px(left, top))
    x1, y1 = (math.ceil(v - 1e-6) for v in lattice.to_map_px(right, bottom))
    side = 1 << math.ceil(math.log2(max(x1 - x0, y1 - y0, 1)))
    x, y = x0 // side * side, y0 // side * side
    return [Cell(x + i * side, y + j * side, side, side) for j in (0, 1) for i in (0, 1)]


def _areas(geometry: shapely.Geometry) -> Polygon | MultiPolygon | None:
    """The parts that have area: where a polygon only touches a cell, lines and points are left too."""
    parts = [part for part in shapely.get_parts(geometry).tolist() if isinstance(part, Polygon)]
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else MultiPolygon(parts)


def _single(geometry: Polygon | MultiPolygon) -> NDArray[np.object_]:
    one = np.empty(1, dtype=object)
    one[0] = geometry
    return one
