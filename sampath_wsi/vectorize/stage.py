"""Stage 4: the class map of a segmentation store -> GeoJSON for QuPath."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import TypeAdapter, ValidationError

from sampath_wsi.classes import TissueClass
from sampath_wsi.errors import ConfigError, StoreError
from sampath_wsi.progress import Progress
from sampath_wsi.qupath import ObjectType, ObjectWriter
from sampath_wsi.store import Provenance, open_store
from sampath_wsi.vectorize.chunks import StoreMap
from sampath_wsi.vectorize.core import Cleaning, Statistics, draw_map
from sampath_wsi.vectorize.drawing import Drawing, Objects
from sampath_wsi.vectorize.spool import Spool

Frame = Literal["qupath", "slide"]
CHUNK_MAP_PX = 512
_DEFAULT_TOLERANCE_MAP_PX = 0.75

# Where QuPath becomes slow; measured with its own reader.
_MANY_ANNOTATIONS = 1_000
_MANY_VERTICES = 100_000
_LARGE_JSON_BYTES = 75_000_000
_NOTABLE_CHANGE = 0.005


@dataclass(frozen=True)
class VectorizeResult:
    """What :func:`vectorize` wrote.

    Parameters
    ----------
    path
        The GeoJSON file.
    objects, area_um2
        By class name: how many objects, and the area of all regions after small parts were removed (also of classes
        that make no objects).
    n_vertices
        Of all objects together, as written.
    json_bytes
        Size of the file unpacked.
    changed_fraction
        Share of all map pixels whose class the removal of small islands and holes changed.
    frame, scale_level0_px_per_map_px, offset_level0_px
        A point (x, y) of the map lies at ``map * scale + offset`` in the file.
    tolerance_um, min_area_um2, min_hole_um2
        As used.
    warnings
        One line each: what may make the file uncomfortable in QuPath, and what to do.
    """

    path: Path
    objects: dict[str, int]
    area_um2: dict[str, float]
    n_vertices: int
    json_bytes: int
    changed_fraction: float
    frame: Frame
    scale_level0_px_per_map_px: tuple[float, float]
    offset_level0_px: tuple[float, float]
    tolerance_um: float
    min_area_um2: float
    min_hole_um2: float
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The same as a JSON object."""
        return {**asdict(self), "path": str(self.path)}


def vectorize(
    segmentation_path: Path,
    out: Path,
    *,
    tolerance_um: float | None = None,
    min_area_um2: float = 25.0,
    min_hole_um2: float = 25.0,
    objects: Objects = "regions",
    object_type: ObjectType = "annotation",
    frame: Frame = "qupath",
    workers: int = 1,
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
    tolerance_um
        Simplification cuts off triangles of up to this length squared, in micrometres; 0 follows every pixel. None is
        three quarters of a map pixel, which takes the steps from slanted borders and moves hardly a pixel's centre to
        another class; from a whole pixel on, files are a third smaller and one pixel in 300 changes.
    min_area_um2
        A connected region of a class with less area (default: less than a nucleus) goes to the region around it.
    min_hole_um2
        The same for a region without class: a hole in the tissue.
    objects
        One object a connected region, or one a class.
    object_type
        ``annotation`` (can be edited) or ``detection`` (for many objects; measurement maps colour them).
    frame
        ``qupath``: relative to the slide's bounds where QuPath crops to them; ``slide``: the slide's own level 0.
    workers
        Processes.
    progress
        Called with the number of steps done and of all steps.

    Raises
    ------
    ConfigError
        If an option makes no sense.
    StoreError
        If there is no finished segmentation store, or it is damaged, or another process is writing ``out``.
    """
    group, provenance = open_store(Path(segmentation_path), "segmentation")
    del group
    tolerance_um = _DEFAULT_TOLERANCE_MAP_PX * provenance.grid.mpp_map if tolerance_um is None else tolerance_um
    _check_options(tolerance_um, min_area_um2, min_hole_um2, objects, object_type, frame)
    class_map = StoreMap(Path(segmentation_path))
    drawing = _drawing(provenance, class_map, objects, object_type, frame)
    px_um2 = drawing.mpp_map**2
    cleaning = Cleaning(tolerance_um / drawing.mpp_map, min_area_um2 / px_um2, min_hole_um2 / px_um2)
    writer = ObjectWriter(Path(out))
    with writer, Spool(Path(out).parent) as spool:
        statistics = draw_map(
            class_map, drawing, cleaning, spool, chunk_map_px=CHUNK_MAP_PX, workers=workers, progress=progress
        )
        for feature in spool:
            writer.write(feature)
    height, width = class_map.shape
    changed = statistics.changed_map_px / (height * width)
    return VectorizeResult(
        path=Path(out),
        objects={c.name: statistics.objects[k] for k, c in enumerate(drawing.classes, 1)},
        area_um2={c.name: statistics.area_map_px[k] * px_um2 for k, c in enumerate(drawing.classes, 1)},
        n_vertices=statistics.n_vertices,
        json_bytes=writer.json_bytes,
        changed_fraction=changed,
        frame=frame,
        scale_level0_px_per_map_px=drawing.scale_level0_px_per_map_px,
        offset_level0_px=drawing.offset_level0_px,
        tolerance_um=tolerance_um,
        min_area_um2=min_area_um2,
        min_hole_um2=min_hole_um2,
        warnings=_warnings(statistics, writer, changed, object_type),
    )


def _check_options(
    tolerance_um: float, min_area_um2: float, min_hole_um2: float, objects: str, object_type: str, frame: str
) -> None:
    sizes = {"tolerance_um": tolerance_um, "min_area_um2": min_area_um2, "min_hole_um2": min_hole_um2}
    for key, size in sizes.items():
        if not (math.isfinite(size) and size >= 0):
            raise ConfigError(f"vectorize: {key} is {size}", "Give a number that is not negative.")
    choices = {"objects": (objects, Objects), "object_type": (object_type, ObjectType), "frame": (frame, Frame)}
    for key, (value, kind) in choices.items():
        if value not in get_args(kind):
            raise ConfigError(f"vectorize: {key} is {value!r}", f"Choose {' or '.join(get_args(kind))}.")


def _drawing(
    provenance: Provenance, class_map: StoreMap, objects: Objects, object_type: ObjectType, frame: Frame
) -> Drawing:
    """Classes and frame of a segmentation store."""
    try:
        classes = TypeAdapter(tuple[TissueClass, ...]).validate_python(provenance.options["classes"])
        crop_x, crop_y = provenance.slide["qupath_offset_level0_px"] if frame == "qupath" else (0.0, 0.0)
        fingerprint = str(provenance.slide["fingerprint"])
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        raise StoreError(f"{class_map.path}: its record is damaged ({error!r})", "Stitch the slide again.") from None
    labels, probability = class_map.arrays
    if probability.shape != (len(classes), *labels.shape):
        raise StoreError(
            f"{class_map.path}: probabilities {probability.shape} do not fit {len(classes)} classes on a map of "
            f"{labels.shape}",
            "Stitch the slide again.",
        )
    scale_x, scale_y, offset_x, offset_y = provenance.grid.map_to_level0_px()
    return Drawing(
        classes=classes,
        fingerprint=fingerprint,
        scale_level0_px_per_map_px=(scale_x, scale_y),
        offset_level0_px=(offset_x - float(crop_x), offset_y - float(crop_y)),
        mpp_map=provenance.grid.mpp_map,
        map_width_map_px=class_map.shape[1],
        object_type=object_type,
        objects=objects,
        far_corner_level0_px=(
            offset_x + provenance.grid.region_width_level0_px - float(crop_x),
            offset_y + provenance.grid.region_height_level0_px - float(crop_y),
        ),
    )


def _warnings(
    statistics: Statistics, writer: ObjectWriter, changed_fraction: float, object_type: ObjectType
) -> tuple[str, ...]:
    warnings: list[str] = []
    if object_type == "annotation" and writer.count > _MANY_ANNOTATIONS:
        warnings.append(
            f"{writer.count} annotations: QuPath paints each of them anew at every move and is slow above some "
            "hundreds. Write detections, raise min_area_um2, or make one object a class."
        )
    if statistics.most_vertices > _MANY_VERTICES:
        warnings.append(
            f"one object has {statistics.most_vertices} vertices: QuPath takes seconds to read and draw it. "
            "Raise tolerance_um and min_area_um2."
        )
    if writer.json_bytes > _LARGE_JSON_BYTES:
        warnings.append(
            f"{writer.json_bytes / 1e6:.0f} MB of GeoJSON when unpacked: QuPath needs more than a gigabyte of memory "
            "to read it. Raise tolerance_um and min_area_um2."
        )
    if changed_fraction > _NOTABLE_CHANGE:
        warnings.append(
            f"removing small islands and holes changed the class of {changed_fraction:.1%} of the map: the prediction "
            "is noisy. Look at it, or lower min_area_um2 and min_hole_um2."
        )
    return tuple(warnings)
