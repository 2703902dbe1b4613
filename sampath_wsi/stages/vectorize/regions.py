"""Connected regions of a class map, and the graph of regions on which small ones are merged.

A region is a largest set of equal pixels that hang together by their sides. All regions of all classes are found at
once: the map is cut into runs of equal pixels along its rows, and runs of equal label that touch in neighbouring rows
are linked. The cost is two comparisons a pixel and a sparse graph of the runs.

A region that is too small goes to the region with which it shares the longest border. This depends on whole regions
alone, never on where chunks lie, and gives the new regions at once, so that nothing is labelled twice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Regions:
    """The 4-connected regions of a window, numbered by their first pixel in reading order.

    Parameters
    ----------
    image
        ``(height, width)`` int32, the region of every pixel.
    run_start
        ``(runs,)``, where each run of equal pixels begins in the flattened window.
    run_region
        ``(runs,)``, its region.
    label
        ``(regions,)``, the label value of each region.
    first
        ``(regions,)``, its first pixel in the flattened window.
    area
        ``(regions,)``, its number of pixels.
    """

    image: NDArray[np.int32]
    run_start: Ints
    run_region: NDArray[np.int32]
    label: NDArray[Any]
    first: Ints
    area: Ints

    def __len__(self) -> int:
        return len(self.label)


def group(n: int, a: NDArray[np.number], b: NDArray[np.number]) -> NDArray[np.int32]:
    """Number the groups into which links ``a - b`` join ``n`` nodes, ascending by the first node of each."""
    links = coo_array((np.ones(len(a), dtype=np.bool_), (a, b)), shape=(n, n))
    count, found = connected_components(links, directed=False)
    first = np.empty(count, dtype=np.int64)
    # Of several values for one place the last stays, here that of the first node.
    first[found[::-1]] = np.arange(n - 1, -1, -1)
    rank = np.empty(count, dtype=np.int32)
    rank[np.argsort(first)] = np.arange(count, dtype=np.int32)
    numbers: NDArray[np.int32] = rank[found]
    return numbers


def connected_regions(labels: NDArray[np.number]) -> Regions:
    """Find the 4-connected regions of a non-empty ``(height, width)`` label map."""
    height, width = labels.shape
    starts = np.empty((height, width), dtype=np.bool_)
    starts[:, 0] = True
    np.not_equal(labels[:, 1:], labels[:, :-1], out=starts[:, 1:])
    run_start = np.flatnonzero(starts)
    run_length = np.diff(run_start, append=height * width)
    run_of_pixel = np.repeat(np.arange(len(run_start), dtype=np.int32), run_length)

    # Two runs that touch do so first where one of them begins: one link there is enough.
    touch = (labels[1:] == labels[:-1]) & (starts[1:] | starts[:-1])
    upper = np.flatnonzero(touch)
    run_region = group(len(run_start), run_of_pixel[upper], run_of_pixel[upper + width])

    n = int(run_region.max()) + 1
    first = np.full(n, height * width, dtype=np.int64)
    np.minimum.at(first, run_region, run_start)
    return Regions(
        image=np.repeat(run_region, run_length).reshape(height, width),
        run_start=run_start,
        run_region=run_region,
        label=labels.ravel()[first],
        first=first,
        area=_sums(run_region, run_length, n),
    )


def region_sums(regions: Regions, channels: NDArray[np.number]) -> NDArray[np.float64]:
    """Add up every channel over every region; exact for integers.

    Parameters
    ----------
    channels
        ``(channel, height, width)`` of the same window.

    Returns
    -------
    ``(regions, channel)``, in the unit of the channels.
    """
    dtype = np.int64 if channels.dtype.kind in "ui" else np.float64
    sums = np.empty((len(regions), len(channels)))
    for i, channel in enumerate(channels):
        runs = np.add.reduceat(channel.ravel(), regions.run_start, dtype=dtype)
        sums[:, i] = np.bincount(regions.run_region, weights=runs, minlength=len(regions))
    return sums


def borders(regions: Regions) -> Ints:
    """Find which regions of a window touch along pixel sides, and along how many; as of :class:`RegionGraph`."""
    image = regions.image
    beside, below = image[:, 1:] != image[:, :-1], image[1:] != image[:-1]
    a = np.concatenate([image[:, :-1][beside], image[:-1][below]])
    b = np.concatenate([image[:, 1:][beside], image[1:][below]])
    pair, length = np.unique(_pair(a, b, len(regions)), return_counts=True)
    return np.stack([pair // len(regions), pair % len(regions), length], axis=1)


def _pair(a: NDArray[np.number], b: NDArray[np.number], n: int) -> Ints:
    """Return one number for each unordered pair of numbers below ``n``: the lesser is ``pair // n``."""
    pair: Ints = np.minimum(a, b).astype(np.int64) * n + np.maximum(a, b)
    return pair


def _sums(index: NDArray[np.number], weights: NDArray[np.number], n: int) -> Ints:
    return np.bincount(index, weights=weights, minlength=n).astype(np.int64)


def crack_count(image: NDArray[np.int32], x: Ints, y: Ints) -> Ints:
    """Count the sides between different regions that meet between pixels ``(y, x)`` and ``(y + 1, x + 1)``."""
    north_west, north_east = image[y, x], image[y, x + 1]
    south_west, south_east = image[y + 1, x], image[y + 1, x + 1]
    sides = [north_west != north_east, north_east != south_east, south_east != south_west, south_west != north_west]
    count: Ints = np.sum(sides, axis=0, dtype=np.int64)
    return count


@dataclass(frozen=True)
class RegionGraph:
    """Regions of a map, or pieces of them, and which of them touch.

    Parameters
    ----------
    label, area_map_px
        ``(regions,)``.
    first_map_px
        ``(regions,)``, the first pixel in the flattened map.
    classed_map_px, probability_sum
        ``(regions,)`` and ``(regions, class)``: number of, and sums over, the pixels that had a class before small
        regions were merged.
    touching
        ``(pairs, 3)``: lesser and greater number of two regions that touch, and along how many pixel sides.
    """

    label: NDArray[np.uint8]
    area_map_px: Ints
    first_map_px: Ints
    classed_map_px: Ints
    probability_sum: NDArray[np.float64]
    touching: Ints

    def __len__(self) -> int:
        return len(self.label)


def contract(graph: RegionGraph, into: Ints) -> RegionGraph:
    """Return the graph in which every region has become part of region ``into[region]``, which has the same label."""
    n = int(into.max()) + 1
    label = np.zeros(n, np.uint8)
    label[into] = graph.label
    first = np.full(n, np.iinfo(np.int64).max)
    np.minimum.at(first, into, graph.first_map_px)
    sums = np.empty((n, graph.probability_sum.shape[1]))
    for k, column in enumerate(graph.probability_sum.T):
        sums[:, k] = np.bincount(into, weights=column, minlength=n)
    (a, b), length = into[graph.touching[:, :2]].T, graph.touching[:, 2]
    between = a != b
    pair, index = np.unique(_pair(a[between], b[between], n), return_inverse=True)
    return RegionGraph(
        label=label,
        area_map_px=_sums(into, graph.area_map_px, n),
        first_map_px=first,
        classed_map_px=_sums(into, graph.classed_map_px, n),
        probability_sum=sums,
        touching=np.stack([pair // n, pair % n, _sums(index, length[between], len(pair))], axis=1),
    )


def merge_small(graph: RegionGraph, min_area_map_px: float, min_hole_map_px: float) -> tuple[RegionGraph, Ints]:
    """Merge regions of a class below ``min_area_map_px`` and regions without class below ``min_hole_map_px``.

    In rounds: every small region chooses, of the neighbours that are not small or at least *greater*, the one with
    which it shares the longest border (then the greater, then the earlier), takes the label found at the end of that
    chain of choices, and joins every neighbour of that label; those still small go on. A region that fills the
    whole map stays.

    Returns
    -------
    The new regions, numbered by first pixel, and ``(old regions,)`` the new region of each.
    """
    became = np.arange(len(graph))
    while True:
        target = _targets(graph, min_area_map_px, min_hole_map_px)
        if target is None:
            return graph, became
        graph = replace(graph, label=graph.label[target])
        a, b, _ = graph.touching.T
        same = graph.label[a] == graph.label[b]
        into = group(len(graph), a[same], b[same]).astype(np.int64)
        graph, became = contract(graph, into), into[became]


def _targets(graph: RegionGraph, min_area_map_px: float, min_hole_map_px: float) -> Ints | None:
    """Return the region whose label each region takes (itself, unless small); None if nothing is left to merge."""
    area = graph.area_map_px
    small = area < np.where(graph.label == 0, min_hole_map_px, min_area_map_px)
    source, target, length = np.concatenate([graph.touching, graph.touching[:, [1, 0, 2]]]).T
    greater = (area[target] > area[source]) | ((area[target] == area[source]) & (target < source))
    choice = np.flatnonzero(small[source] & (greater | ~small[target]))
    if not len(choice):
        return None
    order = choice[np.lexsort((target[choice], -area[target[choice]], -length[choice], source[choice]))]
    source, target = source[order], target[order]
    best = np.flatnonzero(np.diff(source, prepend=-1))
    result = np.arange(len(graph))
    result[source[best]] = target[best]
    # Every step leads to a greater region or to one that stays, so the chains end.
    while not np.array_equal(followed := result[result], result):
        result = followed
    return result


def without_small_regions(labels: NDArray[np.uint8], min_area_px: float) -> NDArray[np.uint8]:
    """Merge the regions of less than ``min_area_px`` of a label map in memory; see :func:`merge_small`.

    Parameters
    ----------
    labels
        ``(height, width)``; 0, no class, is a label like any other here.
    """
    regions = connected_regions(labels)
    no_sums = np.empty((len(regions), 0))
    graph = RegionGraph(regions.label, regions.area, regions.first, regions.area, no_sums, borders(regions))
    graph, became = merge_small(graph, min_area_px, min_area_px)
    cleaned: NDArray[np.uint8] = graph.label[became][regions.image]
    return cleaned
