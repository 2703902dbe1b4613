"""First pass: what regions every chunk holds, and how they hang together over the chunk borders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sampath_wsi.stages.vectorize.chunks import Chunking, ClassMap, Window
from sampath_wsi.stages.vectorize.regions import Ints, borders, connected_regions, count_pairs, group, region_sums


@dataclass(frozen=True)
class ChunkSurvey:
    """The regions of one chunk (here: pieces, for a region of the map may have pieces in many chunks).

    Parameters
    ----------
    label, area_map_px, first_map_px
        ``(pieces,)``; ``first_map_px`` is the first pixel in the flattened whole map.
    probability_sum
        ``(pieces, class)`` in the unit of the store, zero for pieces without class; None without probabilities.
    sides
        The pieces along the top, bottom, left and right side of the chunk.
    touching
        Pairs of pieces that touch, and along how many pixel sides; only pairs of which one may be small.
    """

    label: NDArray[np.uint8]
    area_map_px: Ints
    first_map_px: Ints
    probability_sum: NDArray[np.float64] | None
    sides: tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]
    touching: tuple[Ints, Ints, Ints]


@dataclass(frozen=True)
class RegionGraph:
    """The regions of the whole map, numbered by their first pixel in reading order.

    Parameters
    ----------
    label, area_map_px, first_map_px
        ``(regions,)``.
    classed_map_px
        ``(regions,)``, how many of its pixels had a class before small parts were merged.
    probability_sum
        ``(regions, class)``, over the pixels that had a class.
    touching
        As in :class:`ChunkSurvey`, between regions.
    """

    label: NDArray[np.uint8]
    area_map_px: Ints
    first_map_px: Ints
    classed_map_px: Ints
    probability_sum: NDArray[np.float64] | None
    touching: tuple[Ints, Ints, Ints]

    def __len__(self) -> int:
        return len(self.label)


def survey_chunk(class_map: ClassMap, window: Window, small_map_px: int) -> ChunkSurvey:
    """Survey one chunk.

    Parameters
    ----------
    small_map_px
        Borders between pieces that both have at least this area are left out; 0 leaves out all.
    """
    labels = class_map.labels(window)
    pieces = connected_regions(labels)
    y, x = np.divmod(pieces.first, window.width)
    sums: NDArray[np.float64] | None = None
    if pieces.label.any():
        channels = class_map.probability(window)
        if channels is not None:
            sums = region_sums(pieces, channels)
            sums[pieces.label == 0] = 0
    touching = _no_pairs()
    if small_map_px > 0:
        a, b, length = borders(pieces)
        keep = np.minimum(pieces.area[a], pieces.area[b]) < small_map_px
        touching = a[keep], b[keep], length[keep]
    image = pieces.image
    return ChunkSurvey(
        label=pieces.label,
        area_map_px=pieces.area,
        first_map_px=(y + window.y) * class_map.shape[1] + x + window.x,
        probability_sum=sums,
        sides=(image[0].copy(), image[-1].copy(), image[:, 0].copy(), image[:, -1].copy()),
        touching=touching,
    )


def _no_pairs() -> tuple[Ints, Ints, Ints]:
    return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64)


def join(surveys: Sequence[ChunkSurvey], chunking: Chunking) -> tuple[RegionGraph, Ints, Ints]:
    """Join the pieces of all chunks (in the order of ``chunking.windows``) into regions.

    Returns
    -------
    The regions; ``(all pieces,)`` the region of every piece; ``(chunks + 1,)`` where each chunk's pieces begin there.
    """
    begin = np.concatenate([[0], np.cumsum([len(survey.label) for survey in surveys])])
    label = np.concatenate([survey.label for survey in surveys])
    area = np.concatenate([survey.area_map_px for survey in surveys])
    first = np.concatenate([survey.first_map_px for survey in surveys])
    a, b = _seams(surveys, chunking, begin)
    same = label[a] == label[b]
    region = _by_first_pixel(group(len(label), a[same], b[same]), first)

    touching = [survey.touching for survey in surveys]
    ends = [np.concatenate([t[i] + begin[k] for k, t in enumerate(touching)]) for i in (0, 1)]
    length = np.concatenate([t[2] for t in touching])
    ends = [np.concatenate([ends[0], a[~same]]), np.concatenate([ends[1], b[~same]])]
    length = np.concatenate([length, np.ones(np.count_nonzero(~same), np.int64)])
    pieces = RegionGraph(
        label, area, first, np.where(label > 0, area, 0), _stack_sums(surveys), (ends[0], ends[1], length)
    )
    return contract(pieces, region), region, begin


def _by_first_pixel(region: NDArray[np.int32], first_map_px: Ints) -> Ints:
    n = int(region.max()) + 1
    earliest = np.full(n, np.iinfo(np.int64).max)
    np.minimum.at(earliest, region, first_map_px)
    rank = np.empty(n, np.int64)
    rank[np.argsort(earliest)] = np.arange(n)
    return rank[region]


def contract(graph: RegionGraph, into: Ints) -> RegionGraph:
    """The graph in which every node has become part of node ``into[node]``; labels are those of the greatest parts.

    Parameters
    ----------
    into
        ``(nodes,)`` consecutive numbers, ascending by the first pixel of what they stand for.
    """
    n = int(into.max()) + 1
    label = np.empty(n, np.uint8)
    order = np.argsort(graph.area_map_px, kind="stable")
    label[into[order]] = graph.label[order]
    first = np.full(n, np.iinfo(np.int64).max)
    np.minimum.at(first, into, graph.first_map_px)
    sums = graph.probability_sum
    if sums is not None:
        sums = np.stack([np.bincount(into, weights=column, minlength=n) for column in sums.T], axis=1)
    a, b, length = into[graph.touching[0]], into[graph.touching[1]], graph.touching[2]
    between = a != b
    a, b, length = a[between], b[between], length[between]
    low, high, _ = count_pairs(a, b, n)
    slot = np.searchsorted(low * n + high, np.minimum(a, b) * n + np.maximum(a, b))
    return RegionGraph(
        label=label,
        area_map_px=_count(into, graph.area_map_px, n),
        first_map_px=first,
        classed_map_px=_count(into, graph.classed_map_px, n),
        probability_sum=sums,
        touching=(low, high, _count(slot, length, len(low))),
    )


def _count(index: Ints, weights: Ints, n: int) -> Ints:
    return np.bincount(index, weights=weights, minlength=n).astype(np.int64)


def _stack_sums(surveys: Sequence[ChunkSurvey]) -> NDArray[np.float64] | None:
    widths = {survey.probability_sum.shape[1] for survey in surveys if survey.probability_sum is not None}
    if not widths:
        return None
    width = widths.pop()
    return np.concatenate(
        [np.zeros((len(s.label), width)) if s.probability_sum is None else s.probability_sum for s in surveys]
    )


def _seams(surveys: Sequence[ChunkSurvey], chunking: Chunking, begin: Ints) -> tuple[Ints, Ints]:
    """The pairs of pieces that lie on the two sides of every pixel side between two chunks."""
    a, b = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for k in range(len(surveys)):
        row, column = divmod(k, chunking.columns)
        if column + 1 < chunking.columns:
            a.append(surveys[k].sides[3] + begin[k])
            b.append(surveys[k + 1].sides[2] + begin[k + 1])
        if row + 1 < chunking.rows:
            below = k + chunking.columns
            a.append(surveys[k].sides[1] + begin[k])
            b.append(surveys[below].sides[0] + begin[below])
    return np.concatenate(a), np.concatenate(b)
