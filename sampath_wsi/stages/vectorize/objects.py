"""From polygons on the map to QuPath's objects: frame, pieces, measurements, names and identifiers.

A polygon of very many vertices is cut into pieces that QuPath reads and draws at once. The cuts lie on a fixed grid of
the map, halved along x and y in turn until every piece is small enough: so a piece is the same for the same polygon,
whatever its neighbours, threads and chunks.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO
from uuid import UUID, uuid5

import numpy as np
import shapely
from shapely import MultiPolygon, Polygon

from sampath_wsi.options import VectorizeOptions
from sampath_wsi.qupath import encode_object, rounded_for_qupath
from sampath_wsi.stages.vectorize.outline import Polygons
from sampath_wsi.stages.vectorize.regions import Ints, RegionGraph
from sampath_wsi.stages.vectorize.source import MapFrame, Source, rounded_box

_NAMESPACE = UUID("7d3b8c52-6f0f-4b0e-9d57-0f6f3a3a9c11")
_AREA, _WHOLE_AREA = "Area µm^2", "Area of all pieces µm^2"


@dataclass(frozen=True)
class Feature:
    """An encoded object; ``piece`` counts from 1, and is 0 for a whole one. A file has them ascending by ``order``."""

    order: int
    label: int
    n_vertices: int
    data: bytes
    piece: int = 0


class FeatureSpool:
    """Features that wait in a temporary file until all are known; in memory are two numbers of each, and counts."""

    def __init__(self, file: IO[bytes]) -> None:
        self.objects: Counter[int] = Counter()
        """Number of objects by label value; every piece counts as an object."""
        self.n_vertices = self.most_vertices = 0
        self.cut_objects = self.pieces = 0
        """Numbers of objects that had too many vertices, and of the pieces that they became."""
        self._file = file
        self._order: list[int] = []
        self._begin: list[int] = [0]

    def add(self, features: Iterable[Feature]) -> None:
        """Add features; their bytes go to the file."""
        for feature in features:
            self.objects[feature.label] += 1
            self.cut_objects += feature.piece == 1
            self.pieces += feature.piece > 0
            self.n_vertices += feature.n_vertices
            self.most_vertices = max(self.most_vertices, feature.n_vertices)
            self._file.write(feature.data)
            self._order.append(feature.order)
            self._begin.append(self._begin[-1] + len(feature.data))

    def __iter__(self) -> Iterator[bytes]:
        """Yield the features, ascending by their order."""
        self._file.flush()
        # Read piece by piece: pages of a mapped file would count as memory of this process.
        for k in np.argsort(np.array(self._order), kind="stable").tolist():
            yield os.pread(self._file.fileno(), self._begin[k + 1] - self._begin[k], self._begin[k])


def place(polygons: Polygons, frame: MapFrame) -> Polygons:
    """Transform polygons from map pixels to the frame of the file, and cut off their parts outside the slide."""
    placed: Polygons = shapely.transform(polygons, frame.to_level0_px)
    bounds = shapely.bounds(placed)
    right, bottom = frame.far_corner_level0_px
    for k in np.flatnonzero((bounds[:, 2] > right) | (bounds[:, 3] > bottom)).tolist():
        left, top = bounds[k, :2].tolist()
        placed[k] = _areas(shapely.intersection(placed[k], shapely.box(left, top, right, bottom))) or MultiPolygon()
    return placed


def draw_objects(
    region: Ints,
    polygons: Polygons,
    table: RegionGraph,
    source: Source,
    options: VectorizeOptions,
    ordinal: Ints | None = None,
) -> Iterator[Feature]:
    """Make the objects of some regions.

    Parameters
    ----------
    region, polygons
        ``(n,)`` rows of ``table``, and their polygons as :func:`place` returns them.
    ordinal
        ``(n,)``, the number of each in its class; None where an object stands for a whole class.
    """
    described = zip(
        _pieces(polygons, source.frame, options.max_vertices or math.inf),
        table.label[region].tolist(),
        table.first_map_px[region].tolist(),
        [0] * len(region) if ordinal is None else ordinal.tolist(),
        measurements(table, region, source),
        strict=True,
    )
    for pieces, label, first_map_px, number, measured in described:
        tissue_class = source.classes[label - 1]
        y, x = divmod(first_map_px, source.shape[1])
        # The same for the same region of the same slide at any tolerance, so that a second import is noticed.
        identity = f"{source.fingerprint}/{tissue_class.name}/{f'{x},{y}' if number else 'all'}"
        name = f"{tissue_class.name} {number}" if number else tissue_class.name
        whole_px2 = sum(piece.area_px2 for piece in pieces)
        for count, piece in enumerate(pieces, 1):
            suffix, cut_measured = "", measured
            if piece.place:
                suffix = f", piece {count} of {len(pieces)}"
                area_um2 = round(measured[_AREA] * piece.area_px2 / whole_px2, 3)
                cut_measured = {**measured, _AREA: area_um2, _WHOLE_AREA: measured[_AREA]}
            data = encode_object(
                piece.geometry,
                uuid=uuid5(_NAMESPACE, f"{identity}/{piece.place}" if piece.place else identity),
                tissue_class=tissue_class,
                object_type=options.object_type,
                name=name + suffix,
                measurements=cut_measured,
            )
            n_vertices = int(shapely.get_num_coordinates(piece.geometry))
            yield Feature(first_map_px, label, n_vertices, data, count if piece.place else 0)


def measurements(table: RegionGraph, region: Ints, source: Source) -> list[dict[str, float]]:
    """Measure regions: area, and the mean probability of its own class and of every class, over the region's pixels.

    Pixels that had no class before small holes were filled count for the area, but have no probabilities.
    """
    area_um2 = np.round(table.area_map_px[region] * source.mpp_map**2, 3).tolist()
    classed = table.classed_map_px[region]
    mean = np.round(table.probability_sum[region] / np.maximum(classed, 1)[:, None], 4)
    own = mean[np.arange(len(mean)), table.label[region] - 1]
    keys = [f"Prob: {tissue_class.name}" for tissue_class in source.classes]
    found: list[dict[str, float]] = [{_AREA: area} for area in area_um2]
    for row in np.flatnonzero(classed).tolist():
        found[row]["Mean probability"] = float(own[row])
        found[row].update(zip(keys, mean[row].tolist(), strict=True))
    return found


@dataclass(frozen=True)
class Piece:
    """A polygon, or a part of it, ready to be written; ``place`` names the cell of a part: ``x,y,width,height``."""

    place: str
    geometry: Polygon | MultiPolygon
    area_px2: float


@dataclass(frozen=True)
class Cell:
    """A rectangle of whole map pixels with sides of powers of two."""

    x: int
    y: int
    width: int
    height: int

    def divided(self, times: int) -> list[Cell]:
        """Return the cells of so many halvings, the longer side first, as far as there are pixels."""
        if times == 0 or self.width * self.height == 1:
            return [self]
        width, height = self.width, self.height
        if height > width:
            halves = [Cell(self.x, y, width, height // 2) for y in (self.y, self.y + height // 2)]
        else:
            halves = [Cell(x, self.y, width // 2, height) for x in (self.x, self.x + width // 2)]
        return [part for half in halves for part in half.divided(times - 1)]


def _pieces(polygons: Polygons, frame: MapFrame, max_vertices: float) -> list[list[Piece]]:
    """Return the pieces of every polygon: none if it vanishes, itself, or several if it is too large."""
    pieces: list[list[Piece]] = [[] for _ in polygons]
    large = shapely.get_num_coordinates(polygons) > max_vertices
    for k, geometry in zip(np.flatnonzero(~large).tolist(), rounded_for_qupath(polygons[~large]), strict=True):
        if geometry is not None:
            pieces[k] = [Piece("", geometry, geometry.area)]
    for k in np.flatnonzero(large).tolist():
        pieces[k] = cut(polygons[k], frame, max_vertices)
    return pieces


def cut(polygon: Polygon | MultiPolygon, frame: MapFrame, max_vertices: float) -> list[Piece]:
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
    waiting = [(cell, polygon) for cell in reversed(_first_cells(polygon, frame))]
    while waiting:
        cell, whole = waiting.pop()
        corners = np.array([(cell.x, cell.y), (cell.x + cell.width, cell.y + cell.height)])
        # Rounded as the coordinates of the file are, so that cuts need no more rounding.
        box = rounded_box(frame.to_level0_px(corners))
        part = whole if box.covers(shapely.box(*whole.bounds)) else _areas(shapely.intersection(whole, box))
        if part is None:
            continue
        excess = shapely.get_num_coordinates(part) / max_vertices
        if excess > 1 and cell.width * cell.height > 1:
            # As many cells at once as it will take at least: every cut looks at the whole part again.
            smaller = cell.divided(max(1, int(math.log2(excess))))
            waiting.extend((each, part) for each in reversed(smaller))
            continue
        one = np.empty(1, dtype=object)
        one[0] = part
        (geometry,) = rounded_for_qupath(one)
        if geometry is not None:
            pieces.append(Piece(f"{cell.x},{cell.y},{cell.width},{cell.height}", geometry, float(part.area)))
    return pieces


def _first_cells(polygon: Polygon | MultiPolygon, frame: MapFrame) -> list[Cell]:
    """Return the 2 x 2 cells that cover a polygon: squares on the grid of their own size, which is a power of two."""
    left_top, right_bottom = np.reshape(frame.to_map_px(np.reshape(polygon.bounds, (2, 2))), (2, 2))
    x0, y0 = np.floor(left_top + 1e-6).astype(int).tolist()
    x1, y1 = np.ceil(right_bottom - 1e-6).astype(int).tolist()
    side = 1 << math.ceil(math.log2(max(x1 - x0, y1 - y0, 1)))
    x, y = x0 // side * side, y0 // side * side
    return [Cell(x + i * side, y + j * side, side, side) for j in (0, 1) for i in (0, 1)]


def _areas(geometry: shapely.Geometry) -> Polygon | MultiPolygon | None:
    """Return the parts that have area: where a polygon only touches a rectangle, lines and points are left too."""
    parts = [part for part in shapely.get_parts(geometry).tolist() if isinstance(part, Polygon)]
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else MultiPolygon(parts)
