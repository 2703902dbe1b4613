"""Removal of small islands and holes, on the graph of regions: no pixel is read for it.

A region that is too small goes to the region with which it shares the longest border. This depends on whole regions
alone, never on where the chunks lie, and it gives the new regions at once, so that nothing is labelled twice.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sampath_wsi.stages.vectorize.regions import Ints, group
from sampath_wsi.stages.vectorize.survey import RegionGraph, contract


def merge_small(graph: RegionGraph, min_area_map_px: float, min_hole_map_px: float) -> tuple[RegionGraph, Ints]:
    """Merge regions of a class below ``min_area_map_px`` and regions without class below ``min_hole_map_px``.

    In rounds: every small region chooses, of the neighbours that are not small or at least *greater*, the one with
    which it shares the longest border (then the greater, then the earlier), takes the label found at the end of that
    chain of choices, and joins every neighbour of that label; what is still small goes on. A region that fills the
    whole map stays.

    Returns
    -------
    The new regions, numbered by first pixel, and ``(old regions,)`` what each became part of.
    """
    became = np.arange(len(graph))
    while True:
        target = _targets(graph, min_area_map_px, min_hole_map_px)
        if target is None:
            return graph, became
        label = graph.label[target]
        a, b, _ = graph.touching
        same = label[a] == label[b]
        into = group(len(graph), a[same], b[same]).astype(np.int64)
        graph = replace(contract(graph, into), label=_first_of_each(label, into))
        became = into[became]


def _targets(graph: RegionGraph, min_area_map_px: float, min_hole_map_px: float) -> Ints | None:
    """The region whose label each region takes (itself, unless it is small); None if nothing is left to merge."""
    area = graph.area_map_px
    small = area < np.where(graph.label == 0, min_hole_map_px, min_area_map_px)
    found = []
    for source, target in (graph.touching[:2], graph.touching[1::-1]):
        greater = (area[target] > area[source]) | ((area[target] == area[source]) & (target < source))
        choice = small[source] & (greater | ~small[target])
        found.append((source[choice], target[choice], graph.touching[2][choice]))
    source, target, length = (np.concatenate(pair) for pair in zip(*found, strict=True))
    if not len(source):
        return None
    order = np.lexsort((target, -area[target], -length, source))
    source, target = source[order], target[order]
    best = np.flatnonzero(np.diff(source, prepend=-1))
    result = np.arange(len(graph))
    result[source[best]] = target[best]
    # Every step leads to a greater region or to one that stays, so the chains end.
    while not np.array_equal(followed := result[result], result):
        result = followed
    return result


def _first_of_each(label: NDArray[np.uint8], into: Ints) -> NDArray[np.uint8]:
    _, first = np.unique(into, return_index=True)
    return label[first]
