"""Between the passes: which regions the whole map has, and what the second pass must know of every chunk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sampath_wsi.stages.vectorize.chunks import Chunking
from sampath_wsi.stages.vectorize.clean import merge_small
from sampath_wsi.stages.vectorize.drawing import RegionTable
from sampath_wsi.stages.vectorize.outline import ChunkTask
from sampath_wsi.stages.vectorize.regions import Ints
from sampath_wsi.stages.vectorize.survey import ChunkSurvey, RegionGraph, join

Strip = NDArray[np.int32]


@dataclass(frozen=True)
class Plan:
    """The regions of the map after cleaning, and where their pieces lie.

    Parameters
    ----------
    table
        All regions.
    region_of_piece
        A chunk's pieces to regions, chunk by chunk.
    sides
        The regions along the top, bottom, left and right side of every chunk.
    changed_map_px
        How many pixels cleaning gave another label.
    """

    chunking: Chunking
    table: RegionTable
    region_of_piece: list[Strip]
    sides: list[tuple[Strip, ...]]
    changed_map_px: int

    def task(self, chunk: int) -> ChunkTask:
        """What the second pass must know of one chunk."""
        row, column = divmod(chunk, self.chunking.columns)
        window = self.chunking.window(row, column)
        regions = self.region_of_piece[chunk]
        return ChunkTask(
            window=window,
            region_of_piece=regions,
            around=(
                self._outside_row(row - 1, column, 1, window.width),
                self._outside_row(row + 1, column, 0, window.width),
                self._side(row, column - 1, 3, window.height),
                self._side(row, column + 1, 2, window.height),
            ),
            table=self.table.rows(np.unique(regions).astype(np.int64)),
        )

    def _side(self, row: int, column: int, side: int, length: int) -> Strip:
        if 0 <= row < self.chunking.rows and 0 <= column < self.chunking.columns:
            return self.sides[row * self.chunking.columns + column][side]
        return np.full(length, -1, dtype=np.int32)

    def _outside_row(self, row: int, column: int, side: int, width: int) -> Strip:
        """The row of pixels above or below a chunk, with the corner pixels, which belong to chunks further on."""
        parts = [
            self._side(row, column - 1, side, 1)[-1:],
            self._side(row, column, side, width),
            self._side(row, column + 1, side, 1)[:1],
        ]
        return np.concatenate(parts)


def plan(
    surveys: Sequence[ChunkSurvey],
    chunking: Chunking,
    *,
    min_area_map_px: float,
    min_hole_map_px: float,
    probability_unit: float,
) -> Plan:
    """Join the surveys of all chunks (in the order of ``chunking.windows``) and remove what is small.

    Parameters
    ----------
    probability_unit
        What the store's probabilities hold for 1.
    """
    graph, region, begin = join(surveys, chunking)
    before = graph
    graph, became = merge_small(graph, min_area_map_px, min_hole_map_px)
    changed = int(before.area_map_px[graph.label[became] != before.label].sum())
    of_piece = became[region].astype(np.int32)
    region_of_piece = [of_piece[a:b] for a, b in pairwise(begin.tolist())]
    sides = [tuple(own[side] for side in s.sides) for own, s in zip(region_of_piece, surveys, strict=True)]
    return Plan(chunking, _table(graph, probability_unit), region_of_piece, sides, changed)


def _table(graph: RegionGraph, probability_unit: float) -> RegionTable:
    order = np.argsort(graph.label, kind="stable")
    first_of_label = np.searchsorted(graph.label[order], graph.label[order])
    ordinal: Ints = np.empty(len(graph), np.int64)
    ordinal[order] = np.arange(len(graph)) - first_of_label + 1
    sums = graph.probability_sum
    return RegionTable(
        region=np.arange(len(graph)),
        label=graph.label,
        area_map_px=graph.area_map_px,
        first_map_px=graph.first_map_px,
        ordinal=ordinal,
        classed_map_px=graph.classed_map_px,
        probability_sum=None if sums is None else sums / probability_unit,
    )
