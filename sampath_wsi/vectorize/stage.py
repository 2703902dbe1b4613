"""Stage 4: the class map of a segmentation store -> GeoJSON for QuPath."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import TypeAdapter, ValidationError

from sampath_wsi.classes import TissueClass
from sampath_wsi.errors import ConfigError, StoreError
from sampath_wsi.progress import Progress, stepper
from sampath_wsi.qupath import ObjectType, ObjectWriter
from sampath_wsi.stores.store import Provenance, open_store
from sampath_wsi.vectorize.chunks import StoreMap
from sampath_wsi.vectorize.core import Cleaning, Statistics, draw_map
from sampath_wsi.vectorize.drawing import Drawing, Objects
from sampath_wsi.vectorize.spool import Spool

Frame = Literal["qupath", "slide"]
CHUNK_MAP_PX = 512
_DEFAULT_TOLERANCE_MAP_PX = 0.75

# Where QuPath becomes slow; measured with its own reader. It takes seconds to read 100,000 vertices of one polygon.
MAX_VERTICES = 20_000
_LEAST_MAX_VERTICES = 100
_MANY_VERTICES = 100_000
_MANY_OBJECTS: dict[ObjectType, int] = {"annotation": 1_000, "detection": 200_000}
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


@dataclass(frozen=True)
class VectorizeResult:
    """What :func:`vectorize` wrote.

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
    max_vertices: int = MAX_VERTICES,
    max_objects: int | None = None,
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
    max_vertices
        An object of more vertices is cut along a grid into pieces that fit each other; 0 keeps every object whole.
    max_objects
        With more objects there is a warning, with what to do; none is left out. None is what QuPath bears: 1000
        annotations or 200,000 detections. 0 never warns.
    workers
        Processes.
    progress
        See :class:`sampath_wsi.progress.Progress`.

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
    _check_limits(max_vertices, max_objects)
    max_objects = _MANY_OBJECTS[object_type] if max_objects is None else max_objects
    class_map = StoreMap(Path(segmentation_path))
    drawing = make_drawing(
        provenance, class_map, frame=frame, objects=objects, object_type=object_type, max_vertices=max_vertices
    )
    px_um2 = drawing.mpp_map**2
    cleaning = Cleaning(tolerance_um / drawing.mpp_map, min_area_um2 / px_um2, min_hole_um2 / px_um2)
    writer = ObjectWriter(Path(out))
    with writer, Spool(Path(out).parent) as spool:
        statistics = draw_map(
            class_map, drawing, cleaning, spool, chunk_map_px=CHUNK_MAP_PX, workers=workers, progress=progress
        )
        step = stepper(progress, sum(statistics.objects.values()), "objects written")
        for feature in spool:
            writer.write(feature)
            step()
    height, width = class_map.shape
    changed = statistics.changed_map_px / (height * width)
    return VectorizeResult(
        path=Path(out),
        objects={c.name: statistics.objects[k] for k, c in enumerate(drawing.classes, 1)},
        area_um2={c.name: statistics.area_map_px[k] * px_um2 for k, c in enumerate(drawing.classes, 1)},
        cut_objects=statistics.cut_objects,
        pieces=statistics.pieces,
        n_vertices=statistics.n_vertices,
        json_bytes=writer.json_bytes,
        changed_fraction=changed,
        frame=frame,
        scale_level0_px_per_map_px=drawing.scale_level0_px_per_map_px,
        offset_level0_px=drawing.offset_level0_px,
        tolerance_um=tolerance_um,
        min_area_um2=min_area_um2,
        min_hole_um2=min_hole_um2,
        max_vertices=max_vertices,
        max_objects=max_objects,
        warnings=_warnings(statistics, writer, changed, object_type, max_objects),
    )


def _check_options(
    tolerance_um: float, min_area_um2: float, min_hole_um2: float, objects: str, object_type: str, frame: str
) -> None:
    sizes = {"tolerance_um": tolerance_um, "min_area_um2": min_area_um2, "min_hole_um2": min_hole_um2}
    for key, size in sizes.items():
        if not (math.isfinite(size) and size >= 0):
            raise ConfigError(f"vectorize: {key} is {size}", "Give a number that is not negative.")
    _check_choices(objects=(objects, Objects), object_type=(object_type, ObjectType), frame=(frame, Frame))


def _check_choices(**choices: tuple[str, object]) -> None:
    for key, (value, kind) in choices.items():
        if value not in get_args(kind):
            raise ConfigError(f"vectorize: {key} is {value!r}", f"Choose {' or '.join(get_args(kind))}.")


def _check_limits(max_vertices: int, max_objects: int | None) -> None:
    if max_vertices != 0 and max_vertices < _LEAST_MAX_VERTICES:
        raise ConfigError(
            f"vectorize: max_vertices is {max_vertices}", f"Give 0 for no limit, or at least {_LEAST_MAX_VERTICES}."
        )
    if max_objects is not None and max_objects < 0:
        raise ConfigError(f"vectorize: max_objects is {max_objects}", "Give 0 for no warning, or a positive number.")


def make_drawing(
    provenance: Provenance,
    class_map: StoreMap,
    *,
    frame: Frame,
    objects: Objects = "regions",
    object_type: ObjectType = "annotation",
    max_vertices: int = 0,
) -> Drawing:
    """Classes and frame of a segmentation store.

    Raises
    ------
    ConfigError
        If there is no such frame.
    StoreError
        If the store's record is damaged, or does not fit its arrays.
    """
    _check_choices(frame=(frame, Frame))
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
        max_vertices=max_vertices,
    )


def _warnings(
    statistics: Statistics, writer: ObjectWriter, changed_fraction: float, object_type: ObjectType, max_objects: int
) -> tuple[str, ...]:
    warnings: list[str] = []
    if 0 < max_objects < writer.count:
        warnings.append(_TOO_MANY[object_type].format(count=writer.count, limit=max_objects))
    if statistics.most_vertices > _MANY_VERTICES:
        warnings.append(
            f"one object has {statistics.most_vertices} vertices: QuPath takes seconds to read and draw it. "
            "Set max_vertices, or raise tolerance and min_area."
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
