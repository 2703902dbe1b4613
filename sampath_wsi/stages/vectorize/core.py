"""The two passes over a class map, from windows of pixels to features in a spool."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from sampath_wsi.errors import StoreError
from sampath_wsi.progress import Progress, stepper
from sampath_wsi.stages.vectorize.chunks import Chunking, ClassMap
from sampath_wsi.stages.vectorize.drawing import Drawing, Feature, RegionTable, draw_class, draw_regions
from sampath_wsi.stages.vectorize.outline import ChunkOutline, join_outline, outline_chunk
from sampath_wsi.stages.vectorize.parallel import Workers
from sampath_wsi.stages.vectorize.plan import Plan, plan
from sampath_wsi.stages.vectorize.polygons import Ring, Rings, gather, single_rings
from sampath_wsi.stages.vectorize.seams import Chain
from sampath_wsi.stages.vectorize.spool import Spool
from sampath_wsi.stages.vectorize.survey import survey_chunk

_CHUNKS_WORTH_A_PROCESS = 8


@dataclass(frozen=True)
class Cleaning:
    """What is too small or too fine to draw, in map pixels: of ``VectorizeOptions``."""

    tolerance_map_px: float
    min_area_map_px: float
    min_hole_map_px: float


@dataclass
class Statistics:
    """What was drawn; the dictionaries are by label value.

    ``cut_objects`` had too many vertices and became ``pieces``, each of which counts as an object. ``changed_map_px``
    counts the pixels that lie in an object of another class than their own, or in none, because small islands and holes
    were removed.
    """

    objects: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    area_map_px: dict[int, int] = field(default_factory=dict)
    n_vertices: int = 0
    most_vertices: int = 0
    cut_objects: int = 0
    pieces: int = 0
    changed_map_px: int = 0


def draw_map(
    class_map: ClassMap,
    drawing: Drawing,
    cleaning: Cleaning,
    spool: Spool,
    *,
    chunk_map_px: int,
    workers: int = 1,
    progress: Progress | None = None,
) -> Statistics:
    """Draw the regions of a class map into a spool.

    The map is read twice, by chunks; nothing larger than a few chunks and the outlines of the regions that are not yet
    complete is in memory. The features do not depend on ``workers``, nor on ``chunk_map_px`` at tolerance 0.

    Raises
    ------
    StoreError
        If the map holds a label for which there is no class.
    """
    chunking = Chunking(class_map.shape, chunk_map_px)
    windows = chunking.windows
    smallest = math.ceil(max(cleaning.min_area_map_px, cleaning.min_hole_map_px))
    # Starting a process takes as long as several chunks.
    with Workers(max(1, min(workers, len(windows) // _CHUNKS_WORTH_A_PROCESS))) as pool:
        surveys = []
        step = stepper(progress, len(windows), "chunks surveyed")
        for survey in pool.map(partial(survey_chunk, class_map, small_map_px=smallest), windows):
            surveys.append(survey)
            step()
        regions = plan(
            surveys,
            chunking,
            min_area_map_px=cleaning.min_area_map_px,
            min_hole_map_px=cleaning.min_hole_map_px,
            probability_unit=class_map.probability_unit,
        )
        del surveys
        _check_labels(regions.table, drawing)
        artist = _Artist(drawing, regions.table, spool)
        tasks = (regions.task(chunk) for chunk in range(len(windows)))
        step = stepper(progress, len(windows), "chunks outlined")
        outline = partial(outline_chunk, class_map, tolerance_map_px=cleaning.tolerance_map_px, drawing=drawing)
        for found in pool.map(outline, tasks):
            artist.take(found)
            step()
    artist.finish()
    return _statistics(artist, regions)


def _check_labels(table: RegionTable, drawing: Drawing) -> None:
    highest = int(table.label.max())
    if highest > len(drawing.classes):
        raise StoreError(
            f"the class map holds label {highest}, but there are only {len(drawing.classes)} classes",
            "Stitch the slide again.",
        )


def _statistics(artist: _Artist, regions: Plan) -> Statistics:
    label = regions.table.label
    area = np.bincount(label, weights=regions.table.area_map_px, minlength=len(artist.drawing.classes) + 1)
    statistics = artist.statistics
    statistics.area_map_px = {k: int(n) for k, n in enumerate(area) if k > 0}
    statistics.changed_map_px = regions.changed_map_px
    return statistics


class _Artist:
    """Puts the outlines of all chunks together and draws every region as soon as it is complete."""

    def __init__(self, drawing: Drawing, table: RegionTable, spool: Spool) -> None:
        self.drawing = drawing
        self.table = table
        self.statistics = Statistics()
        self._spool = spool
        self._missing_map_px: dict[int, int] = {}
        self._chains: dict[int, list[Chain]] = defaultdict(list)
        self._holes: dict[int, list[Ring]] = defaultdict(list)
        self._of_class: dict[int, list[Rings]] = defaultdict(list)

    def take(self, found: ChunkOutline) -> None:
        """Take what the second pass found in one chunk."""
        for feature in found.features:
            self._add(feature)
        if found.rings is not None:
            self._collect(found.rings)
        for chain in found.chains:
            self._chains[chain.region].append(chain)
        for region, ring in found.holes:
            self._holes[region].append(ring)
        complete = [region for region, area in found.open_area if self._is_complete(region, area)]
        if complete:
            joined = [
                join_outline(region, self._chains.pop(region), self._holes.pop(region, [])) for region in complete
            ]
            self._draw(gather(part for rings in joined for part in single_rings(rings)))

    def finish(self) -> None:
        """Draw what waits for the whole map."""
        assert not self._missing_map_px, f"regions {sorted(self._missing_map_px)[:5]} are incomplete"
        for label in sorted(self._of_class):
            rings = gather(part for rings in self._of_class.pop(label) for part in single_rings(rings))
            for feature in draw_class(rings, self.table.rows(np.unique(rings.region)), self.drawing):
                self._add(feature)

    def _is_complete(self, region: int, area_map_px: int) -> bool:
        """Whether the region has all its pixels, now that so many more of them were outlined."""
        missing = self._missing_map_px.pop(region, int(self.table.area_map_px[region])) - area_map_px
        if missing:
            self._missing_map_px[region] = missing
        return missing == 0

    def _draw(self, rings: Rings) -> None:
        if self.drawing.objects == "classes":
            self._collect(rings)
            return
        for feature in draw_regions(rings, self.table.rows(np.unique(rings.region)), self.drawing):
            self._add(feature)

    def _collect(self, rings: Rings) -> None:
        label = self.table.label[rings.region]
        for value in np.unique(label).tolist():
            self._of_class[value].append(rings.where(label == value))

    def _add(self, feature: Feature) -> None:
        self._spool.add(feature)
        self.statistics.objects[feature.label] += 1
        self.statistics.cut_objects += feature.piece == 1
        self.statistics.pieces += feature.piece > 0
        self.statistics.n_vertices += feature.n_vertices
        self.statistics.most_vertices = max(self.statistics.most_vertices, feature.n_vertices)
