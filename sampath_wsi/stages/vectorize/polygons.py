"""Regions of a label map as polygons on the lattice of pixel corners, and their simplification without gaps.

Every side between two different regions (a crack) is followed once for each of the two, with the region on the right as
seen on the screen (x to the right, y down), so that outer rings have a positive signed area and holes a negative one.
Where a region touches itself across a corner, the ring turns so that the region stays in one piece and the background
is parted; by the Jordan curve theorem no ring then meets a corner twice, and every region is one valid polygon.

A ring has a vertex at every bend, wherever three or more cracks meet, and at every corner on the window's border. So
neighbours have the same vertices along their common border: the polygons are a valid coverage in the sense of JTS/GEOS,
as they come from here and after simplification.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, depth_first_order

from sampath_wsi.stages.vectorize.regions import Ints

Ring = NDArray[np.int32]

# Directions of travel: right, down, left, up. Steps of x and y; and for the corner that is reached, the offset
# (row, column) of the pixel ahead on the right and on the left in an image padded by one pixel.
_STEP = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])
_AHEAD_RIGHT = np.array([(1, 1), (1, 0), (0, 0), (0, 1)])
_AHEAD_LEFT = np.array([(0, 1), (1, 1), (1, 0), (0, 0)])


@dataclass(frozen=True)
class Rings:
    """Closed rings on the lattice; the rings of one region follow each other, its outer ring first.

    Parameters
    ----------
    xy
        ``(vertices, 2)`` int32, x and y of the pixel corners; the first vertex is not repeated at a ring's end.
    begin
        ``(rings + 1,)``, where each ring begins in ``xy``.
    region
        ``(rings,)``, ascending.
    """

    xy: NDArray[np.int32]
    begin: Ints
    region: Ints

    def __len__(self) -> int:
        return len(self.region)

    def where(self, wanted: NDArray[np.bool_]) -> Rings:
        """Only the rings for which ``wanted (rings,)`` holds."""
        length = np.diff(self.begin)
        begin = np.concatenate([[0], np.cumsum(length[wanted])])
        return Rings(self.xy[np.repeat(wanted, length)], begin, self.region[wanted])

    @property
    def following(self) -> Ints:
        """``(vertices,)``, the index of the vertex that comes next in the same ring."""
        index = np.arange(1, len(self.xy) + 1)
        index[self.begin[1:] - 1] = self.begin[:-1]
        return index

    @property
    def twice_signed_area(self) -> Ints:
        """``(rings,)`` twice the area in pixels: positive for outer rings, negative for holes.

        Twice, since a simplified ring can hold half a pixel.
        """
        here, there = self.xy.astype(np.int64), self.xy[self.following].astype(np.int64)
        twice: Ints = np.add.reduceat(here[:, 0] * there[:, 1] - here[:, 1] * there[:, 0], self.begin[:-1])
        return twice


def crack_count(padded: NDArray[np.int32], x: Ints, y: Ints) -> Ints:
    """How many cracks meet at the pixel corners ``(x, y)``; ``padded`` is the image with one more pixel around it."""
    north_west, north_east = padded[y, x], padded[y, x + 1]
    south_west, south_east = padded[y + 1, x], padded[y + 1, x + 1]
    sides = [north_west != north_east, north_east != south_east, south_east != south_west, south_west != north_west]
    count: Ints = np.sum(sides, axis=0, dtype=np.int64)
    return count


def trace(image: NDArray[np.int32]) -> Rings:
    """The outlines of all regions of a window.

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
    kept = vertex[order]
    begin = np.concatenate([[0], np.cumsum(kept)])[ring_begin]
    order = order[kept]
    rings = Rings(np.stack([end_x[order], end_y[order]], axis=1).astype(np.int32), begin, region[order[begin[:-1]]])
    return canonical(rings)


def _directed_cracks(padded: NDArray[np.int32]) -> tuple[Ints, Ints, Ints, Ints]:
    """Start corner, direction and region of every crack as seen from both sides, ascending by (direction, y, x)."""
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
    """The cycles of a permutation, one after the other, and where each begins (with the total at the end)."""
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
    """The graph in which every node has the one successor that ``following`` names."""
    n = len(following)
    return csr_array((np.ones(n), following, np.arange(n + 1, dtype=np.int32)), shape=(n, n))


def canonical(rings: Rings) -> Rings:
    """The same rings in a form of their own: each begins at its uppermost, then leftmost vertex.

    The rings of each region follow each other, its outer ring first and the holes by their first vertex.
    """
    begin, length = rings.begin[:-1], np.diff(rings.begin)
    height = (rings.xy[:, 1].astype(np.int64) << 32) + rings.xy[:, 0]
    top = np.minimum.reduceat(height, begin)
    # A ring meets every vertex once, so that there is exactly one at its top.
    start = np.flatnonzero(height == np.repeat(top, length))
    order = np.lexsort((top, rings.twice_signed_area < 0, rings.region))
    new_begin = np.concatenate([[0], np.cumsum(length[order])])
    position = np.arange(new_begin[-1]) - np.repeat(new_begin[:-1], length[order])
    turned = (position + np.repeat((start - begin)[order], length[order])) % np.repeat(length[order], length[order])
    return Rings(rings.xy[np.repeat(begin[order], length[order]) + turned], new_begin, rings.region[order])


def single_rings(rings: Rings) -> list[tuple[int, Ring]]:
    """Pairs of region and ``(vertices, 2)``, as :func:`gather` takes them."""
    bounds = pairwise(rings.begin.tolist())
    return [(region, rings.xy[a:b]) for region, (a, b) in zip(rings.region.tolist(), bounds, strict=True)]


def gather(parts: Iterable[tuple[int, Ring]]) -> Rings:
    """Rings in canonical order from pairs of region and ``(vertices, 2)``; at least one."""
    pairs = list(parts)
    begin = np.cumsum([0, *(len(ring) for _, ring in pairs)])
    region = np.array([region for region, _ in pairs], dtype=np.int64)
    return canonical(Rings(np.concatenate([ring for _, ring in pairs]), begin, region))


def to_polygons(rings: Rings, xy: NDArray[np.float64]) -> NDArray[np.object_]:
    """One shapely polygon a region, with ``xy (vertices, 2)`` in place of the lattice's coordinates."""
    closed = np.insert(xy, rings.begin[1:], xy[rings.begin[:-1]], axis=0)
    ring_begin = rings.begin + np.arange(len(rings.begin))
    polygon_begin = np.concatenate([np.flatnonzero(np.diff(rings.region, prepend=-1)), [len(rings)]])
    polygons: NDArray[np.object_] = shapely.from_ragged_array(
        shapely.GeometryType.POLYGON, closed, (ring_begin, polygon_begin)
    )
    return polygons


def simplify(rings: Rings, tolerance_map_px: float) -> Rings:
    """Simplify all borders between regions, each for both sides alike; the window's own border stays as it is.

    Parameters
    ----------
    tolerance_map_px
        About the square root of the area of the triangles that are cut off (Visvalingam-Whyatt), in map pixels.
        Vertices are only ever left out, so that all coordinates stay on the lattice.
    """
    if tolerance_map_px <= 0 or len(rings) < 2:
        return rings
    polygons = to_polygons(rings, rings.xy.astype(np.float64))
    simpler = shapely.coverage_simplify(polygons, tolerance_map_px, simplify_boundary=False)
    _, xy, (ring_begin, polygon_begin) = shapely.to_ragged_array(simpler)
    index = np.arange(len(xy))
    opened = np.delete(index, ring_begin[1:] - 1)
    is_outer = np.zeros(len(ring_begin) - 1, dtype=np.bool_)
    is_outer[polygon_begin[:-1]] = True
    result = Rings(
        xy=xy[opened].astype(np.int32),
        begin=(ring_begin - np.arange(len(ring_begin))).astype(np.int64),
        region=np.repeat(np.unique(rings.region), np.diff(polygon_begin)),
    )
    return _turn(result, (result.twice_signed_area > 0) != is_outer)


def _turn(rings: Rings, wrong: NDArray[np.bool_]) -> Rings:
    """Reverse some rings: GEOS gives each the sense in which it met its edges."""
    length = np.diff(rings.begin)
    index = np.arange(len(rings.xy))
    mirrored = np.repeat(rings.begin[:-1] + rings.begin[1:] - 1, length) - index
    return Rings(rings.xy[np.where(np.repeat(wrong, length), mirrored, index)], rings.begin, rings.region)
