"""Annotations of one slide as areas with labels, and the labels of any rectangle of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from sampath_wsi.errors import DataError
from sampath_wsi.geometry import Box
from sampath_wsi.qupath import Annotation, flat_parts, read_annotations
from sampath_wsi.slides import SlideInfo
from sampath_wsi.training.data.prepare.label_map import LabelMap


@dataclass(frozen=True)
class Drawing:
    """The annotations of one slide that have an area, with geometries in the slide's own level-0 pixels."""

    path: Path
    annotations: tuple[Annotation, ...]
    warnings: tuple[str, ...]


def read_drawing(path: Path, slide: SlideInfo) -> Drawing:
    """Read the annotations of a slide into the slide's own frame (QuPath's begins at its bounds where it crops).

    Points and lines, objects that are no annotations (detections, cells), and all outside the slide are left out,
    with a warning each.

    Raises
    ------
    DataError
        If nothing with an area lies on the slide.
    AnnotationError
        If the file cannot be read.
    """
    found = read_annotations(path)
    offset_level0_px = np.array(slide.qupath_offset_level0_px)
    frame = shapely.box(0, 0, *slide.size_level0_px)
    left_out = {"are no annotations": 0, "are points or lines": 0, "lie outside the slide": 0}
    kept: list[Annotation] = []
    for annotation in found:
        polygons = [part for part in flat_parts(annotation.geometry) if part.area > 0]
        area = polygons[0] if len(polygons) == 1 else shapely.union_all(polygons)
        area = shapely.transform(area, lambda xy: xy + offset_level0_px)
        if annotation.object_type != "annotation":
            left_out["are no annotations"] += 1
        elif area.is_empty:
            left_out["are points or lines"] += 1
        elif not area.intersects(frame):
            left_out["lie outside the slide"] += 1
        else:
            kept.append(replace(annotation, geometry=area))
    reasons = [f"{count} {reason}" for reason, count in left_out.items() if count]
    if not kept:
        because = f" ({', '.join(reasons)})" if reasons else ""
        raise DataError(
            f"{path}: of its {len(found)} objects none is an area on {slide.path.name}{because}",
            "Check that it was drawn on this slide, and draw closed regions.",
        )
    warnings = [f"{path}: of {len(found)} objects {reason}: left out" for reason in reasons]
    if repaired := sum(annotation.repaired for annotation in kept):
        warnings.append(f"{path}: {repaired} annotations cross themselves and were mended")
    return Drawing(path, tuple(kept), tuple(warnings))


def label_drawing(drawing: Drawing, label_map: LabelMap) -> tuple[Painter, list[str]]:
    """Give every area its label, and warn of the number of areas without a class, which are left out.

    Raises
    ------
    DataError
        Naming the file and a class that the label map does not know.
    """
    areas, labels = [], []
    for annotation in drawing.annotations:
        name = annotation.class_name or label_map.unclassified
        if name is None:
            continue
        label = label_map.label_of_name.get(name, 0 if is_ignored(name) else None)
        if label is None:
            raise DataError(
                f"{drawing.path}: the class {name!r} is unknown "
                f"({label_map.name} has {', '.join(label_map.label_of_name)})",
                "Add it to 'names' of a class, or to 'ignored_names', of the label map (--label-map).",
            )
        areas.append(annotation.geometry)
        labels.append(label)
    missing = len(drawing.annotations) - len(areas)
    warnings = [f"{drawing.path}: {missing} annotations have no class: left out"] if missing else []
    return Painter(areas, labels), warnings


def is_ignored(name: str) -> bool:
    """Return whether QuPath's convention (a trailing ``*``) says that a name is no class: ``Ignore*``, ``Region*``."""
    return name.endswith("*")


class Painter:
    """Labels of rectangles of one slide: of overlapping annotations the smaller is on top, of equal ones the later.

    Parameters
    ----------
    areas_level0_px
        Polygons and multipolygons, in the order of their file.
    labels
        Label of each: 0 clears the areas below.
    """

    def __init__(self, areas_level0_px: Sequence[BaseGeometry], labels: Sequence[int]) -> None:
        order = sorted(range(len(labels)), key=lambda k: -areas_level0_px[k].area)
        self._areas = [areas_level0_px[k] for k in order]
        self._labels = [labels[k] for k in order]
        self._tree = shapely.STRtree(self._areas)

    def bounds_level0_px(self) -> NDArray[np.float64]:
        """Return the bounds ``(n, 4)`` (left, top, right, bottom) of every part that is labelled."""
        labelled = [area for area, label in zip(self._areas, self._labels, strict=True) if label]
        parts = [part for area in labelled for part in flat_parts(area)]
        return shapely.bounds(np.array(parts, dtype=object)).reshape(-1, 4)

    def paint(self, box_level0_px: Box, size_px: tuple[int, int]) -> NDArray[np.uint8]:
        """Return the labels ``(height, width)`` of the centres of ``size_px`` (width, height) pixels of a rectangle."""
        from rasterio import features
        from rasterio.transform import Affine

        box = box_level0_px
        hits = np.sort(self._tree.query(shapely.box(box.x, box.y, box.right, box.bottom), predicate="intersects"))
        if not hits.size:
            return np.zeros(size_px[::-1], np.uint8)
        pixel = Affine(box.width / size_px[0], 0, box.x, 0, box.height / size_px[1], box.y)
        shapes = [(self._areas[k], self._labels[k]) for k in hits]
        return np.asarray(features.rasterize(shapes, out_shape=size_px[::-1], transform=pixel, dtype=np.uint8))
