"""What stage 4 says of the file that it wrote."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sampath_wsi.qupath import ObjectType
from sampath_wsi.stages.vectorize.core import Statistics
from sampath_wsi.stages.vectorize.drawing import Drawing
from sampath_wsi.stages.vectorize.options import Frame, VectorizeOptions

# Where QuPath becomes slow; see sampath_wsi.stages.vectorize.options.
_MANY_VERTICES = 100_000
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
_LARGE_JSON_BYTES = 75_000_000
_NOTABLE_CHANGE = 0.005
# Whoever sets larger areas than the default's wants a change.
_NOTABLE_WANTED_CHANGE = 0.05


@dataclass(frozen=True)
class VectorizeResult:
    """What :func:`sampath_wsi.stages.vectorize.stage.vectorize` wrote.

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
    frame, scale_level0_px_per_map_px, offset_level0_px
        A point (x, y) of the map lies at ``map * scale + offset`` in the file.
    tolerance_um, min_area_um2, min_hole_um2, max_vertices, max_objects
        As used.
    warnings
        One line each: what may make the file uncomfortable in QuPath, and what to do.
    """

    path: Path
    objects: dict[str, int]
    area_um2: dict[str, float]
    cut_objects: int
    pieces: int
    n_vertices: int
    json_bytes: int
    changed_fraction: float
    frame: Frame
    scale_level0_px_per_map_px: tuple[float, float]
    offset_level0_px: tuple[float, float]
    tolerance_um: float
    min_area_um2: float
    min_hole_um2: float
    max_vertices: int
    max_objects: int
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The same as a JSON object."""
        return {**asdict(self), "path": str(self.path)}


def describe_result(
    path: Path,
    json_bytes: int,
    statistics: Statistics,
    drawing: Drawing,
    options: VectorizeOptions,
    map_shape: tuple[int, int],
) -> VectorizeResult:
    """Put together what was drawn, on a map of ``map_shape`` (height, width), and what was asked for."""
    px_um2 = drawing.mpp_map**2
    changed = statistics.changed_map_px / (map_shape[0] * map_shape[1])
    labelled = list(enumerate(drawing.classes, 1))
    return VectorizeResult(
        path=path,
        objects={c.name: statistics.objects[k] for k, c in labelled},
        area_um2={c.name: statistics.area_map_px[k] * px_um2 for k, c in labelled},
        cut_objects=statistics.cut_objects,
        pieces=statistics.pieces,
        n_vertices=statistics.n_vertices,
        json_bytes=json_bytes,
        changed_fraction=changed,
        frame=options.frame,
        scale_level0_px_per_map_px=drawing.scale_level0_px_per_map_px,
        offset_level0_px=drawing.offset_level0_px,
        tolerance_um=options.tolerance_um_at(drawing.mpp_map),
        min_area_um2=options.min_area_um2,
        min_hole_um2=options.min_hole_um2,
        max_vertices=options.max_vertices,
        max_objects=options.warned_objects,
        warnings=_warnings(statistics, json_bytes, changed, options),
    )


def _warnings(
    statistics: Statistics, json_bytes: int, changed_fraction: float, options: VectorizeOptions
) -> tuple[str, ...]:
    count, limit = sum(statistics.objects.values()), options.warned_objects
    warnings: list[str] = []
    if 0 < limit < count:
        warnings.append(_TOO_MANY[options.object_type].format(count=count, limit=limit))
    if statistics.most_vertices > _MANY_VERTICES:
        warnings.append(
            f"one object has {statistics.most_vertices} vertices: QuPath takes seconds to read and draw it. "
            "Set max_vertices, or raise tolerance and min_area."
        )
    if json_bytes > _LARGE_JSON_BYTES:
        warnings.append(
            f"{json_bytes / 1e6:.0f} MB of GeoJSON when unpacked: QuPath needs more than a gigabyte of memory "
            "to read it. Raise tolerance_um and min_area_um2."
        )
    usual = VectorizeOptions()
    wanted = options.min_area_um2 > usual.min_area_um2 or options.min_hole_um2 > usual.min_hole_um2
    if changed_fraction > (_NOTABLE_WANTED_CHANGE if wanted else _NOTABLE_CHANGE):
        warnings.append(
            f"removing small islands and holes changed the class of {changed_fraction:.1%} of the map: the prediction "
            "is noisy. Look at it, or lower vectorize.min_area and vectorize.min_hole."
        )
    return tuple(warnings)
