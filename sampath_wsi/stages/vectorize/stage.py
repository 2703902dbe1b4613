"""Stage 4: the class map of a segmentation store -> GeoJSON for QuPath."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import shapely

from sampath_wsi.errors import StoreError
from sampath_wsi.options import VectorizeOptions
from sampath_wsi.progress import Progress, stepper
from sampath_wsi.qupath import ObjectType, ObjectWriter
from sampath_wsi.stages.vectorize.objects import FeatureSpool, draw_objects, place
from sampath_wsi.stages.vectorize.outline import Polygons, outline_regions
from sampath_wsi.stages.vectorize.regions import Ints, RegionGraph, contract
from sampath_wsi.stages.vectorize.source import Source, open_source
from sampath_wsi.stages.vectorize.survey import MapRegions, survey_map

CHUNK_MAP_PX = 512
# QuPath takes seconds to read so many vertices of one polygon.
_MANY_VERTICES = 100_000
_LARGE_JSON_BYTES = 75_000_000
_TOO_MANY: dict[ObjectType, str] = {
    "annotation": (
        "{count} annotations, more than {limit}: QuPath paints each of them anew at every move and is slow above some "
        "hundreds. Set object_type to detection, raise min_area, or set objects to classes."
    ),
    "detection": (
        "{count} detections, more than {limit}: QuPath takes many seconds and gigabytes of memory to read them. "
        "Raise min_area, or set objects to classes."
    ),
}
_NOTABLE_CHANGE = 0.005
# Whoever sets larger areas than the default's wants a change.
_NOTABLE_WANTED_CHANGE = 0.05


@dataclass(frozen=True)
class VectorizeResult:
    """The result of :func:`vectorize`.

    Parameters
    ----------
    path
        The GeoJSON file.
    objects, area_um2
        By class name: how many objects (every piece is one), and the area of all regions after small parts were
        removed (also of classes that make no objects).
    cut_objects, pieces
        How many objects had too many vertices, and into how many pieces they were cut together.
    n_vertices
        Of all objects together, as written.
    json_bytes
        Size of the file unpacked.
    changed_fraction
        Share of all map pixels whose class the removal of small islands and holes changed.
    scale_level0_px_per_map_px, offset_level0_px
        A point (x, y) of the map lies at ``map * scale + offset`` in the file.
    options, tolerance_um
        As given, and the tolerance as used.
    warnings
        One line each: a difficulty that the file may cause in QuPath, and its remedy.
    """

    path: Path
    objects: dict[str, int]
    area_um2: dict[str, float]
    cut_objects: int
    pieces: int
    n_vertices: int
    json_bytes: int
    changed_fraction: float
    scale_level0_px_per_map_px: tuple[float, float]
    offset_level0_px: tuple[float, float]
    options: VectorizeOptions
    tolerance_um: float
    warnings: tuple[str, ...]

    @property
    def facts(self) -> dict[str, object]:
        """Facts for the record of the stage."""
        return {
            "objects": self.objects,
            "cut_objects": self.cut_objects,
            "pieces": self.pieces,
            "vertices": self.n_vertices,
            "json_bytes": self.json_bytes,
            "changed_by_cleaning": self.changed_fraction,
            "frame": self.options.frame,
            "warnings": list(self.warnings),
        }


def vectorize(
    segmentation_path: Path,
    out: Path,
    options: VectorizeOptions | None = None,
    *,
    progress: Progress | None = None,
) -> VectorizeResult:
    """Turn the class map of a segmentation store into polygons that QuPath opens.

    The polygons of all classes fit each other without gaps and overlaps. Classes whose name ends in ``*`` make no
    objects.

    Parameters
    ----------
    segmentation_path
        A finished ``segmentation.ome.zarr``.
    out
        The file to write: ``.geojson.gz``, ``.geojson`` or ``.json``; put in place when whole.

    Raises
    ------
    ConfigError
        If ``out`` has another name.
    StoreError
        If there is no finished segmentation store, or it is damaged, or another process is writing ``out``.
    """
    options, out = options or VectorizeOptions(), Path(out)
    source, _ = open_source(segmentation_path, options.frame)
    writer = ObjectWriter(out)
    with writer, tempfile.TemporaryFile(dir=out.parent) as file:
        spool = FeatureSpool(file)
        regions = draw_map(source, options, spool, progress=progress)
        step = stepper(progress, spool.objects.total(), "objects written")
        for feature in spool:
            writer.write(feature)
            step()
    return _describe(writer, source, options, spool, regions)


def draw_map(
    source: Source,
    options: VectorizeOptions,
    spool: FeatureSpool,
    *,
    chunk_map_px: int = CHUNK_MAP_PX,
    progress: Progress | None = None,
) -> MapRegions:
    """Draw the regions of a class map into a spool.

    The map is read twice, by chunks; nothing larger than a few chunks and the outlines of the regions that are not yet
    complete is in memory. At tolerance 0 the features do not depend on ``chunk_map_px``.

    Raises
    ------
    StoreError
        If the map holds a label for which there is no class.
    """
    px_um2 = source.mpp_map**2
    regions = survey_map(source, chunk_map_px, options.min_area / px_um2, options.min_hole / px_um2, progress=progress)
    highest = int(regions.graph.label.max())
    if highest > len(source.classes):
        raise StoreError(
            f"the class map holds label {highest}, but there are only {len(source.classes)} classes",
            "Stitch the slide again.",
        )
    tolerance_map_px = options.tolerance_um_at(source.mpp_map) / source.mpp_map
    outlines = outline_regions(source, regions, tolerance_map_px, progress=progress)
    placed = ((region, place(polygons, source.frame)) for region, polygons in outlines)
    if options.objects == "regions":
        ordinal = regions.ordinal
        for region, polygons in placed:
            spool.add(draw_objects(region, polygons, regions.graph, source, options, ordinal[region]))
    else:
        spool.add(draw_objects(*_join_classes(placed, regions.graph), source, options))
    return regions


def _join_classes(placed: Iterable[tuple[Ints, Polygons]], graph: RegionGraph) -> tuple[Ints, Polygons, RegionGraph]:
    """Join the polygons of each class: label values, their multipolygons, and a table with a row for every value."""
    collected = list(placed)
    if not collected:
        return np.empty(0, np.int64), np.empty(0, object), graph
    region = np.concatenate([each for each, _ in collected])
    polygons = np.concatenate([each for _, each in collected])[np.argsort(region)]
    label = graph.label[np.sort(region)].astype(np.int64)
    values = np.unique(label)
    joined = [shapely.multipolygons(shapely.get_parts(polygons[label == value])) for value in values]
    apart = replace(graph, touching=graph.touching[:0])
    return values, np.array(joined, object), contract(apart, graph.label.astype(np.int64))


def _describe(
    writer: ObjectWriter, source: Source, options: VectorizeOptions, spool: FeatureSpool, regions: MapRegions
) -> VectorizeResult:
    px_um2 = source.mpp_map**2
    height, width = source.shape
    changed = regions.changed_map_px / (height * width)
    area_map_px = np.bincount(
        regions.graph.label, weights=regions.graph.area_map_px, minlength=len(source.classes) + 1
    ).tolist()
    return VectorizeResult(
        path=writer.path,
        objects={c.name: spool.objects[k] for k, c in enumerate(source.classes, 1)},
        area_um2={c.name: int(area_map_px[k]) * px_um2 for k, c in enumerate(source.classes, 1)},
        cut_objects=spool.cut_objects,
        pieces=spool.pieces,
        n_vertices=spool.n_vertices,
        json_bytes=writer.json_bytes,
        changed_fraction=changed,
        scale_level0_px_per_map_px=source.frame.scale_level0_px_per_map_px,
        offset_level0_px=source.frame.offset_level0_px,
        options=options,
        tolerance_um=options.tolerance_um_at(source.mpp_map),
        warnings=_warnings(spool, writer.json_bytes, changed, options),
    )


def _warnings(
    spool: FeatureSpool, json_bytes: int, changed_fraction: float, options: VectorizeOptions
) -> tuple[str, ...]:
    count, limit = spool.objects.total(), options.warned_objects
    warnings: list[str] = []
    if 0 < limit < count:
        warnings.append(_TOO_MANY[options.object_type].format(count=count, limit=limit))
    if spool.most_vertices > _MANY_VERTICES:
        warnings.append(
            f"one object has {spool.most_vertices} vertices: QuPath takes seconds to read and draw it. "
            "Set max_vertices, or raise tolerance and min_area."
        )
    if json_bytes > _LARGE_JSON_BYTES:
        warnings.append(
            f"{json_bytes / 1e6:.0f} MB of GeoJSON when unpacked: QuPath needs more than a gigabyte of memory "
            "to read it. Raise tolerance and min_area."
        )
    usual = VectorizeOptions()
    wanted = options.min_area > usual.min_area or options.min_hole > usual.min_hole
    if changed_fraction > (_NOTABLE_WANTED_CHANGE if wanted else _NOTABLE_CHANGE):
        warnings.append(
            f"removing small islands and holes changed the class of {changed_fraction:.1%} of the map: the prediction "
            "is noisy. Look at it, or lower vectorize.min_area and vectorize.min_hole."
        )
    return tuple(warnings)
