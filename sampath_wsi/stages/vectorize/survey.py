"""First pass: the regions of every chunk, joined over the chunk borders, without those that are too small."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sampath_wsi.progress import Progress, stepper
from sampath_wsi.stages.vectorize.regions import (
    Ints,
    RegionGraph,
    borders,
    connected_regions,
    contract,
    crack_count,
    group,
    merge_small,
    region_sums,
)
from sampath_wsi.stages.vectorize.source import Source, Window, windows


class ChunkBorders:
    """The region of every pixel along the sides of all chunks.

    Parameters
    ----------
    shape
        (height, width) of the map.
    side_map_px
        Of the chunks.
    """

    def __init__(self, shape: tuple[int, int], side_map_px: int) -> None:
        self.side_map_px = side_map_px
        height, width = shape
        # The first and last row of the chunks in row k are 2 k + 1 and 2 k + 2; -1 around the map. Columns likewise.
        self.rows = np.full((2 * -(-height // side_map_px) + 2, width + 2), -1, np.int32)
        self.columns = np.full((height + 2, 2 * -(-width // side_map_px) + 2), -1, np.int32)

    def put(self, window: Window, image: NDArray[np.int32]) -> None:
        """Take the borders of one chunk's ``(height, width)`` regions."""
        row, column = 2 * (window.y // self.side_map_px) + 1, 2 * (window.x // self.side_map_px) + 1
        self.rows[row : row + 2, window.x + 1 : window.x + 1 + window.width] = image[[0, -1]]
        self.columns[window.y + 1 : window.y + 1 + window.height, column : column + 2] = image[:, [0, -1]]

    def renumber(self, number: Ints) -> None:
        """Replace every region by ``number[region]``."""
        for lines in (self.rows, self.columns):
            lines[lines >= 0] = number[lines[lines >= 0]]

    def across(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return the two regions at every pixel side between two chunks."""
        above, left = self.rows[2:-2:2, 1:-1], self.columns[1:-1, 2:-2:2]
        below, right = self.rows[3:-1:2, 1:-1], self.columns[1:-1, 3:-1:2]
        return np.concatenate([above.ravel(), left.ravel()]), np.concatenate([below.ravel(), right.ravel()])

    def crack_count(self, x: Ints, y: Ints) -> Ints:
        """Count the sides between regions that meet at the corners ``(x, y)`` of chunks or on their borders.

        A corner at the right or lower edge of the map lies on the border of the last chunk.
        """
        side = self.side_map_px
        row, column = -(-y // side), -(-x // side)
        on_row = (y % side == 0) | (y == len(self.columns) - 2)
        count = np.empty(len(x), np.int64)
        count[on_row] = crack_count(self.rows, x[on_row], 2 * row[on_row])
        count[~on_row] = crack_count(self.columns, 2 * column[~on_row], y[~on_row])
        return count


@dataclass(frozen=True)
class MapRegions:
    """The regions of a map after small ones were merged, and where they lie.

    Parameters
    ----------
    windows
        The chunks.
    graph
        The regions, numbered by their first pixel.
    of_piece
        For each chunk ``(pieces,)``: the region of each connected piece that the chunk alone shows, by first pixel.
    first_chunk, last_chunk
        ``(regions,)``, where each region begins and ends.
    borders
        Of the chunks.
    changed_map_px
        How many pixels lie in a region of another label than their own.
    """

    windows: list[Window]
    graph: RegionGraph
    of_piece: list[Ints]
    first_chunk: Ints
    last_chunk: Ints
    borders: ChunkBorders
    changed_map_px: int

    @property
    def ordinal(self) -> Ints:
        """``(regions,)``: 1 for the first region of its label, and so on."""
        label = self.graph.label
        order = np.argsort(label, kind="stable")
        ordinal: Ints = np.empty(len(label), np.int64)
        ordinal[order] = np.arange(1, len(label) + 1) - np.searchsorted(label[order], label[order])
        return ordinal


def survey_map(
    source: Source,
    side_map_px: int,
    min_area_map_px: float,
    min_hole_map_px: float,
    *,
    progress: Progress | None = None,
) -> MapRegions:
    """Find the regions of a map, chunk by chunk, and merge those that are too small.

    Parameters
    ----------
    side_map_px
        Of the chunks; the regions do not depend on it.
    min_area_map_px, min_hole_map_px
        See :func:`merge_small`.
    """
    chunks = windows(source.shape, side_map_px)
    lines = ChunkBorders(source.shape, side_map_px)
    smallest = max(min_area_map_px, min_hole_map_px)
    whole, region, begin = find_regions(source, chunks, lines, smallest, progress=progress)
    graph, became = merge_small(whole, min_area_map_px, min_hole_map_px)
    graph = replace(graph, probability_sum=graph.probability_sum / source.probability_unit)
    changed = int(whole.area_map_px[graph.label[became] != whole.label].sum())
    of_piece = became[region]
    lines.renumber(of_piece)
    # Of several values for one place the last stays.
    chunk = np.repeat(np.arange(len(chunks)), np.diff(begin))
    first_chunk, last_chunk = np.empty((2, len(graph)), np.int64)
    first_chunk[of_piece[::-1]], last_chunk[of_piece] = chunk[::-1], chunk
    return MapRegions(chunks, graph, np.split(of_piece, begin[1:-1]), first_chunk, last_chunk, lines, changed)


def find_regions(
    source: Source,
    chunks: list[Window],
    lines: ChunkBorders,
    smallest_map_px: float,
    *,
    progress: Progress | None = None,
) -> tuple[RegionGraph, Ints, list[int]]:
    """Find the connected pieces of every chunk and join them to regions of any size.

    Parameters
    ----------
    lines
        Is filled with the numbers of the pieces, counted over all chunks.
    smallest_map_px
        Borders in a chunk between two pieces of at least this area are left out: no merging asks for them.

    Returns
    -------
    The regions, numbered by first pixel, their probability sums in the unit of the store; ``(all pieces,)`` the region
    of each piece; ``(chunks + 1,)`` where each chunk's pieces begin.
    """
    surveys: list[RegionGraph] = []
    begin = [0]
    step = stepper(progress, len(chunks), "chunks surveyed")
    for window in chunks:
        pieces, image = _survey_chunk(source, window, smallest_map_px)
        lines.put(window, image + np.int32(begin[-1]))
        surveys.append(pieces)
        begin.append(begin[-1] + len(pieces))
        step()
    return *_join(surveys, begin, lines), begin


def _survey_chunk(source: Source, window: Window, smallest_map_px: float) -> tuple[RegionGraph, NDArray[np.int32]]:
    """Find the connected pieces of one chunk, and the piece of every pixel."""
    pieces = connected_regions(source.labels(window))
    sums = np.zeros((len(pieces), len(source.classes)))
    classed = pieces.label > 0
    if classed.any():
        sums[classed] = region_sums(pieces, source.probabilities(window))[classed]
    touching = borders(pieces)
    small = pieces.area[touching[:, :2]].min(axis=1) < smallest_map_px
    y, x = np.divmod(pieces.first, window.width)
    graph = RegionGraph(
        label=pieces.label,
        area_map_px=pieces.area,
        first_map_px=(y + window.y) * source.shape[1] + x + window.x,
        classed_map_px=np.where(classed, pieces.area, 0),
        probability_sum=sums,
        touching=touching[small],
    )
    return graph, pieces.image


def _join(surveys: list[RegionGraph], begin: list[int], lines: ChunkBorders) -> tuple[RegionGraph, Ints]:
    """Join the pieces of all chunks: the regions by their first pixel, and ``(all pieces,)`` the region of each."""

    def all_of(key: str) -> NDArray[Any]:
        return np.concatenate([getattr(survey, key) for survey in surveys])

    label, first = all_of("label"), all_of("first_map_px")
    a, b = lines.across()
    same = label[a] == label[b]
    position = np.empty(len(label), np.int64)
    position[np.argsort(first)] = np.arange(len(label))
    region = group(len(label), position[a[same]], position[b[same]])[position].astype(np.int64)

    seams = np.stack([a[~same], b[~same], np.ones(np.count_nonzero(~same), np.int64)], axis=1)
    touching = [survey.touching + np.array([n, n, 0]) for survey, n in zip(surveys, begin, strict=False)]
    pieces = RegionGraph(
        label=label,
        area_map_px=all_of("area_map_px"),
        first_map_px=first,
        classed_map_px=all_of("classed_map_px"),
        probability_sum=all_of("probability_sum"),
        touching=np.concatenate([*touching, seams]),
    )
    return contract(pieces, region), region
