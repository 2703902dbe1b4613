"""Outlines cut where chunks meet, and put together again across the chunk borders.

A ring of a region that goes on in the next chunk runs along the chunk's border where the region itself has none. These
stretches are cut out, and what is left are chains from one point of the border to another. The chains of all chunks
together, linked end to start, are the region's true outline. Points that only the cutting made are left out again, on
both sides of a border alike, because whether a point is needed depends on the whole map and on its two neighbours in
the outline, which are the same for both sides.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sampath_wsi.stages.vectorize.polygons import Ring, Rings, crack_count
from sampath_wsi.stages.vectorize.regions import Ints


@dataclass(frozen=True)
class Chain:
    """A part of a region's outline inside one chunk, from seam to seam.

    Parameters
    ----------
    region
        The region on the whole map.
    xy_map_px
        ``(vertices, 2)``, both ends included.
    start_is_node
        Whether three or more borders of regions meet at its first point, which must therefore stay.
    """

    region: int
    xy_map_px: Ring
    start_is_node: bool


def drop_redundant(rings: Rings, padded: NDArray[np.int32]) -> tuple[Rings, NDArray[np.bool_]]:
    """Leave out the points that only the chunk's border made, and say which edges the region does not end at.

    Parameters
    ----------
    rings
        Rings in one chunk's own coordinates; ``region`` is a region of the whole map.
    padded
        ``(height + 2, width + 2)``, the region on the whole map of every pixel of the chunk and of the pixels around
        it; -1 outside the map.

    Returns
    -------
    The rings, and ``(vertices,)`` whether the edge that begins at a vertex is a seam: the same region on both sides.
    """
    x, y = rings.xy[:, 0].astype(np.int64), rings.xy[:, 1].astype(np.int64)
    following = rings.following
    before = np.empty_like(following)
    before[following] = np.arange(len(following))
    owner = np.repeat(rings.region, np.diff(rings.begin))
    seam = _is_seam(x, y, following, owner, padded)
    height, width = padded.shape[0] - 2, padded.shape[1] - 2
    candidate = np.flatnonzero(((x == 0) | (x == width) | (y == 0) | (y == height)) & ~seam & ~seam[before])
    a, b = before[candidate], following[candidate]
    turn = (x[candidate] - x[a]) * (y[b] - y[candidate]) - (y[candidate] - y[a]) * (x[b] - x[candidate])
    redundant = candidate[(turn == 0) & (crack_count(padded, x[candidate], y[candidate]) == 2)]
    keep = np.ones(len(x), dtype=np.bool_)
    keep[redundant] = False
    begin = np.concatenate([[0], np.cumsum(keep)])[rings.begin]
    return Rings(rings.xy[keep], begin, rings.region), seam[keep]


def _is_seam(x: Ints, y: Ints, following: Ints, owner: Ints, padded: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Whether each edge lies on the chunk's border with its own region on the other side.

    On the border every corner is a vertex, so that an edge there is one pixel long and has one pixel outside it.
    """
    height, width = padded.shape[0] - 2, padded.shape[1] - 2
    next_x, next_y = x[following], y[following]
    across = np.full(len(x), -2, dtype=np.int64)
    for line, outside in ((0, 0), (width, width + 1)):
        on = np.flatnonzero((x == line) & (next_x == line))
        across[on] = padded[np.minimum(y[on], next_y[on]) + 1, outside]
    for line, outside in ((0, 0), (height, height + 1)):
        on = np.flatnonzero((y == line) & (next_y == line))
        across[on] = padded[outside, np.minimum(x[on], next_x[on]) + 1]
    seam: NDArray[np.bool_] = across == owner
    return seam


def cut(ring: Ring, seam: NDArray[np.bool_], is_node: NDArray[np.bool_], region: int) -> list[Chain]:
    """Cut one ring at its seams (of which it has at least one).

    Parameters
    ----------
    ring, seam, is_node
        ``(vertices, 2)`` and ``(vertices,)``: points in map pixels of the whole map, whether the edge that begins there
        is a seam, and whether three or more borders meet there.
    """
    # Turned so that the last edge is a seam: then every chain lies in one stretch of the array.
    turned = np.arange(len(seam)) + int(seam.argmax()) + 1
    turned[turned >= len(seam)] -= len(seam)
    ring, seam, is_node = ring[turned], seam[turned], is_node[turned]
    ends = np.flatnonzero(seam)
    return [
        Chain(region, ring[start : end + 1], bool(is_node[start]))
        for start, end in zip(np.concatenate([[0], ends[:-1] + 1]).tolist(), ends.tolist(), strict=True)
        if end > start
    ]


def link(chains: Iterable[Chain]) -> list[Ring]:
    """Link all chains of one region to closed rings that meet no point twice."""
    starts: dict[tuple[int, int], list[Chain]] = defaultdict(list)
    for chain in chains:
        starts[_point(chain.xy_map_px[0])].append(chain)
    rings: list[Ring] = []
    while starts:
        walk: list[Chain] = []
        # As many chains end at a point as begin there, so that the walk can only stop where it began.
        at = next(iter(starts))
        while at in starts:
            walk.append(starts[at].pop())
            if not starts[at]:
                del starts[at]
            at = _point(walk[-1].xy_map_px[-1])
        rings.extend(_part_at_touching_points(_closed(walk)))
    return rings


def _point(xy: NDArray[np.int32]) -> tuple[int, int]:
    return int(xy[0]), int(xy[1])


def _closed(walk: list[Chain]) -> Ring:
    """The ring that a closed walk of chains makes, without the redundant points between them."""
    ring = np.concatenate([chain.xy_map_px[:-1] for chain in walk])
    begin = np.cumsum([0, *(len(chain.xy_map_px) - 1 for chain in walk[:-1])])
    here = ring.astype(np.int64)
    a, b = here[begin - 1], here[(begin + 1) % len(ring)]
    at = here[begin]
    turn = (at[:, 0] - a[:, 0]) * (b[:, 1] - at[:, 1]) - (at[:, 1] - a[:, 1]) * (b[:, 0] - at[:, 0])
    is_node = np.array([chain.start_is_node for chain in walk])
    return np.delete(ring, begin[(turn == 0) & ~is_node], axis=0)


def _part_at_touching_points(ring: Ring) -> list[Ring]:
    """Part a ring into rings that meet no point twice.

    Where a region touches itself across a corner, linking may have taken either of the two ways on; parting leaves the
    one by which the outer ring and the hole that it closes touch in that point.
    """
    key = (ring[:, 1].astype(np.int64) << 32) + ring[:, 0]
    _, inverse, count = np.unique(key, return_inverse=True, return_counts=True)
    if count.max() == 1:
        return [ring]
    parts: list[Ring] = []
    stack: list[int] = []
    place: dict[int, int] = {}
    for k, point in enumerate(inverse.tolist()):
        if point in place:
            at = place[point]
            parts.append(ring[stack[at:]])
            for left in stack[at:]:
                place.pop(int(inverse[left]))
            del stack[at:]
        place[point] = len(stack)
        stack.append(k)
    return [*parts, ring[stack]]
