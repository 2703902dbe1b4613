"""Second pass: regions of a class map as polygons on the lattice of pixel corners, simplified without gaps.

Every side between two different regions (a crack) is followed once for each of the two, with the region on the right as
seen on the screen (x to the right, y down), so that outer rings have a positive signed area and holes a negative one.
Where a region touches itself across a corner, the ring turns so that the region stays in one piece and the background
is parted; by the Jordan curve theorem no ring then meets a corner twice, and every region is one valid polygon.

A ring has a vertex at every bend, wherever three or more cracks meet, and at every corner on the border of a chunk. So
neighbours have the same vertices along their common border: the polygons are a valid coverage in the sense of JTS/GEOS,
as they come from here and after simplification, and the polygons that a region has in several chunks can be joined by
their equal edges. Vertices that only the chunk's border made are left out last, on both sides of a border alike,
because whether one is needed depends on the whole map and on its two neighbours in the outline, which are the same for
both sides.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, depth_first_order

from sampath_wsi.progress import Progress, stepper
from sampath_wsi.stages.vectorize.regions import Ints, connected_regions, crack_count
from sampath_wsi.stages.vectorize.source import Source
from sampath_wsi.stages.vectorize.survey import ChunkBorders, MapRegions

Polygons = NDArray[np.object_]

# Directions of travel: right, down, left, up. Steps of x and y; and for the corner that is reached, the offset
# (row, column) of the pixel ahead on the right and on the left in an image padded by one pixel.
_STEP = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])
_AHEAD_RIGHT = np.array([(1, 1), (1, 0), (0, 0), (0, 1)])
_AHEAD_LEFT = np.array([(0, 1), (1, 1), (1, 0), (0, 0)])


def outline_regions(
    source: Source, regions: MapRegions, tolerance_map_px: float, *, progress: Progress | None = None
) -> Iterator[tuple[Ints, Polygons]]:
    """Outline the regions of a map that make objects, chunk by chunk, and give each as soon as it is complete.

    All regions take part in simplifying; for ``tolerance_map_px`` see :func:`simplify`.

    Yields
    ------
    Regions, and the polygon of each in map pixels, with its rings and vertices in canonical order.
    """
    parts: dict[int, list[shapely.Polygon]] = defaultdict(list)
    step = stepper(progress, len(regions.windows), "chunks outlined")
    for chunk in range(len(regions.windows)):
        region, polygons = outline_chunk(source, regions, chunk, tolerance_map_px)
        last = regions.last_chunk[region] == chunk
        whole = last & (regions.first_chunk[region] == chunk)
        for each, polygon in zip(region[~whole].tolist(), polygons[~whole], strict=True):
            parts[each].append(polygon)
        joined = np.unique(region[last & ~whole])
        region = np.concatenate([region[whole], joined])
        if len(region):
            unions = [shapely.coverage_union_all(parts.pop(each)) for each in joined.tolist()]
            yield region, finish(np.concatenate([polygons[whole], unions]), regions.borders)
        step()


def outline_chunk(source: Source, regions: MapRegions, chunk: int, tolerance_map_px: float) -> tuple[Ints, Polygons]:
    """Outline and simplify the regions of one chunk: pairs of a region and a polygon, in map pixels."""
    of_piece, drawn = regions.of_piece[chunk], source.makes_objects
    label = regions.graph.label[of_piece]
    if not drawn[label].any():
        return np.empty(0, np.int64), np.empty(0, object)
    window = regions.windows[chunk]
    pieces = connected_regions(source.labels(window))
    image = of_piece[pieces.image]
    if not np.array_equal(label, pieces.label):  # some were merged
        pieces = connected_regions(image)
    region = image.ravel()[pieces.first]
    polygons = simplify(trace(pieces.image), tolerance_map_px)
    wanted = drawn[regions.graph.label[region]]
    corner = np.array([window.x, window.y])
    moved: Polygons = shapely.transform(polygons[wanted], lambda xy: xy + corner)
    return region[wanted], moved


def simplify(polygons: Polygons, tolerance_map_px: float) -> Polygons:
    """Simplify all borders between the polygons of a window, each for both sides alike; the window's own border stays.

    Parameters
    ----------
    tolerance_map_px
        About the square root of the area of the triangles that are cut off (Visvalingam-Whyatt), in map pixels.
        Vertices are only ever left out, so that all coordinates stay on the lattice.
    """
    if tolerance_map_px <= 0 or len(polygons) < 2:
        return polygons
    simpler: Polygons = shapely.coverage_simplify(polygons, tolerance_map_px, simplify_boundary=False)
    return simpler


def finish(polygons: Polygons, borders: ChunkBorders) -> Polygons:
    """Leave out the vertices that only the borders of chunks made, and put the rest into canonical order."""
    rings = _Rings.of(polygons)
    x, y = rings.xy.T
    height, width = len(borders.columns) - 2, borders.rows.shape[1] - 2
    on_border = (x % borders.side_map_px == 0) | (y % borders.side_map_px == 0) | (x == width) | (y == height)
    following = rings.following
    before = np.empty_like(following)
    before[following] = np.arange(len(following))
    at = np.flatnonzero(on_border)
    a, b = before[at], following[at]
    straight = (x[at] - x[a]) * (y[b] - y[at]) == (y[at] - y[a]) * (x[b] - x[at])
    at = at[straight]
    keep = np.ones(len(x), np.bool_)
    keep[at] = borders.crack_count(x[at], y[at]) > 2
    return rings.where(keep).polygons()


@dataclass(frozen=True)
class _Rings:
    """Closed rings on the lattice, outer ones with a positive signed area and holes with a negative one.

    Parameters
    ----------
    xy
        ``(vertices, 2)`` x and y of the pixel corners; the first vertex is not repeated at a ring's end.
    begin
        ``(rings + 1,)``, where each ring begins in ``xy``.
    polygon
        ``(rings,)``, the number of the polygon to which it belongs.
    """

    xy: Ints
    begin: Ints
    polygon: Ints

    @classmethod
    def of(cls, polygons: Polygons) -> _Rings:
        """Take polygons apart, whose rings may begin anywhere and turn either way."""
        _, closed, (ring_begin, polygon_begin) = shapely.to_ragged_array(shapely.get_parts(polygons))
        begin = ring_begin.astype(np.int64) - np.arange(len(ring_begin))
        xy = np.delete(closed, ring_begin[1:] - 1, axis=0).astype(np.int64)
        rings = cls(xy, begin, np.repeat(np.arange(len(polygons)), np.diff(polygon_begin)))
        is_hole = np.ones(len(rings.polygon), np.bool_)
        is_hole[polygon_begin[:-1]] = False
        index, length = np.arange(len(xy)), np.diff(begin)
        mirrored = np.repeat(begin[:-1] + begin[1:] - 1, length) - index
        wrong = np.repeat((rings.twice_signed_area < 0) != is_hole, length)
        return cls(xy[np.where(wrong, mirrored, index)], begin, rings.polygon)

    def where(self, keep: NDArray[np.bool_]) -> _Rings:
        """Return the rings with only some of their vertices."""
        return _Rings(self.xy[keep], np.concatenate([[0], np.cumsum(keep)])[self.begin], self.polygon)

    @property
    def following(self) -> Ints:
        """``(vertices,)``, the index of the vertex that comes next in the same ring."""
        index = np.arange(1, len(self.xy) + 1)
        index[self.begin[1:] - 1] = self.begin[:-1]
        return index

    @property
    def twice_signed_area(self) -> Ints:
        """``(rings,)`` in pixels; twice, since a simplified ring can hold half a pixel."""
        here, there = self.xy, self.xy[self.following]
        twice: Ints = np.add.reduceat(here[:, 0] * there[:, 1] - here[:, 1] * there[:, 0], self.begin[:-1])
        return twice

    def polygons(self) -> Polygons:
        """Put the polygons together, in ascending order of their numbers.

        Every ring begins at its uppermost, then leftmost vertex; of each polygon the outer ring comes first, then the
        holes by their first vertex.
        """
        begin, length = self.begin[:-1], np.diff(self.begin)
        height = (self.xy[:, 1] << 32) + self.xy[:, 0]
        top = np.minimum.reduceat(height, begin)
        # A ring meets every vertex once, so that there is exactly one at its top.
        start = np.flatnonzero(height == np.repeat(top, length))
        order = np.lexsort((top, self.twice_signed_area < 0, self.polygon))
        begin, length, turn = begin[order], length[order], (start - begin)[order]
        # Each ring once around from its start, and the start again.
        closed = np.concatenate([[0], np.cumsum(length + 1)])
        position = np.arange(closed[-1]) - np.repeat(closed[:-1], length + 1)
        index = (position + np.repeat(turn, length + 1)) % np.repeat(length, length + 1) + np.repeat(begin, length + 1)
        polygon_begin = np.flatnonzero(np.diff(self.polygon[order], prepend=-1, append=-1))
        polygons: Polygons = shapely.from_ragged_array(
            shapely.GeometryType.POLYGON, self.xy[index].astype(np.float64), (closed, polygon_begin)
        )
        return polygons


def trace(image: NDArray[np.int32]) -> Polygons:
    """Outline all regions of a window: one polygon a region, in pixels of the window.

    Parameters
    ----------
    image
        ``(height, width)``, the 4-connected region of every pixel, numbered from 0.
    """
    height, width = image.shape
    padded = np.pad(image, 1, constant_values=-1)
    x, y, direction, region = _directed_cracks(padded)
    end_x, end_y = x + _STEP[direction, 0], y + _STEP[direction, 1]
    right = padded[end_y + _AHEAD_RIGHT[direction, 0], end_x + _AHEAD_RIGHT[direction, 1]] == region
    left = padded[end_y + _AHEAD_LEFT[direction, 0], end_x + _AHEAD_LEFT[direction, 1]] == region
    next_direction = (direction + np.where(left, -1, np.where(right, 0, 1))) % 4

    corners = (height + 1) * (width + 1)
    # Only places of existing cracks are ever looked up: the rest may hold anything.
    crack_at = np.empty(4 * corners, dtype=np.int32)
    crack_at[direction * corners + y * (width + 1) + x] = np.arange(len(x), dtype=np.int32)
    following = crack_at[next_direction * corners + end_y * (width + 1) + end_x]
    on_border = (end_x == 0) | (end_x == width) | (end_y == 0) | (end_y == height)
    vertex = (next_direction != direction) | on_border
    vertex[~vertex] = crack_count(padded, end_x[~vertex], end_y[~vertex]) > 2

    order, ring_begin = _cycles(following)
    rings = _Rings(np.stack([end_x[order], end_y[order]], axis=1), ring_begin, region[order[ring_begin[:-1]]])
    return rings.where(vertex[order]).polygons()


def _directed_cracks(padded: NDArray[np.int32]) -> tuple[Ints, Ints, Ints, Ints]:
    """Return start corner (x, y), direction and region of every crack as seen from both sides."""
    upper, lower = padded[:-1, 1:-1], padded[1:, 1:-1]
    left, right = padded[1:-1, :-1], padded[1:-1, 1:]
    row_y, row_x = np.divmod(np.flatnonzero(upper != lower), upper.shape[1])
    column_y, column_x = np.divmod(np.flatnonzero(left != right), left.shape[1])
    sides = [
        (row_x, row_y, lower[row_y, row_x]),
        (column_x, column_y, left[column_y, column_x]),
        (row_x + 1, row_y, upper[row_y, row_x]),
        (column_x, column_y + 1, right[column_y, column_x]),
    ]
    x = np.concatenate([side[0] for side in sides])
    y = np.concatenate([side[1] for side in sides])
    region = np.concatenate([side[2] for side in sides]).astype(np.int64)
    direction = np.repeat(np.arange(4), [len(side[0]) for side in sides])
    inside = region >= 0
    return x[inside], y[inside], direction[inside], region[inside]


def _cycles(following: NDArray[np.int32]) -> tuple[Ints, Ints]:
    """Return the cycles of a permutation, one after the other, and where each begins (with the total at the end)."""
    n = len(following)
    count, cycle = connected_components(_one_edge_each(following), directed=True, connection="strong")
    start = np.empty(count, dtype=np.int64)
    start[cycle] = np.arange(n)  # any member
    before = np.empty(n, dtype=np.int64)
    before[following] = np.arange(n)
    # One path through all cycles: where a cycle would close, the next one begins.
    path = following.copy()
    path[before[start]] = np.roll(start, -1)
    order = depth_first_order(_one_edge_each(path), int(start[0]), directed=True, return_predecessors=False)
    begin = np.concatenate([[0], np.cumsum(np.bincount(cycle, minlength=count))])
    return order.astype(np.int64), begin


def _one_edge_each(following: NDArray[np.int32]) -> csr_array:
    """Return the graph in which every node has the one successor that ``following`` names."""
    n = len(following)
    return csr_array((np.ones(n), following, np.arange(n + 1, dtype=np.int32)), shape=(n, n))
