"""Annotations drawn on a slide in QuPath, by the same rules wherever they are used.

Only annotations count. ``Region*`` limits: where there are some, nothing outside of them counts. Every other class with
a trailing ``*`` (``Ignore*``) takes away.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from sampath_wsi.errors import AnnotationError
from sampath_wsi.qupath.annotations import Annotation, read_objects
from sampath_wsi.qupath.shapes import polygonal
from sampath_wsi.slides import SlideInfo


@dataclass(frozen=True)
class Drawing:
    """The annotations of one slide that have an area, with geometries in the slide's own level-0 pixels."""

    path: Path
    annotations: tuple[Annotation, ...]
    warnings: tuple[str, ...]

    def roi(self, slide: SlideInfo) -> tuple[list[BaseGeometry], list[BaseGeometry]]:
        """Return the areas to look at, and those to take away from them.

        The first are the annotations ``Region*``, or else all that are not to be ignored, or else the whole slide.
        """
        regions = [a.geometry for a in self.annotations if is_region(a.class_name)]
        ignored = [a.geometry for a in self.annotations if is_ignored(a.class_name) and not is_region(a.class_name)]
        drawn = [a.geometry for a in self.annotations if not is_ignored(a.class_name)]
        return regions or drawn or [shapely.box(0, 0, *slide.size_level0_px)], ignored


def read_drawing(path: Path, slide: SlideInfo) -> Drawing:
    """Read the annotations of a slide into the slide's own frame (QuPath's begins at its bounds where it crops).

    Points and lines, objects that are no annotations (detections, cells, tiles, TMA cores), and what lies beside the
    slide are left out, with a warning each.

    Raises
    ------
    AnnotationError
        If the file cannot be read, or nothing with an area lies on the slide.
    """
    found = read_objects(path, "annotation")
    offset_level0_px = np.array(slide.qupath_offset_level0_px)
    frame = shapely.box(0, 0, *slide.size_level0_px)
    left_out = {"are no annotations": found.unwanted, "are points or lines": 0, "lie outside the slide": 0}
    kept: list[Annotation] = []
    for annotation in found.annotations:
        area = shapely.transform(polygonal(annotation.geometry), lambda xy: xy + offset_level0_px)
        if area.is_empty:
            left_out["are points or lines"] += 1
        elif not area.intersects(frame):
            left_out["lie outside the slide"] += 1
        else:
            kept.append(replace(annotation, geometry=area))
    reasons = [f"{count} {reason}" for reason, count in left_out.items() if count]
    if not kept:
        because = f" ({', '.join(reasons)})" if reasons else ""
        raise AnnotationError(
            f"{path}: of its {found.count} objects none is an area on {slide.path.name}{because}",
            "Check that it was drawn on this slide, and draw closed regions.",
        )
    warnings = [*found.warnings, *(f"{path}: of {found.count} objects {reason}: left out" for reason in reasons)]
    if repaired := sum(annotation.repaired for annotation in kept):
        warnings.append(f"{path}: {repaired} annotations cross themselves and were mended")
    return Drawing(path, tuple(kept), tuple(warnings))


def is_ignored(class_name: str | None) -> bool:
    """Return whether a name is no class by QuPath's convention: it, or a part of a derived one, ends in ``*``."""
    return class_name is not None and any(part.rstrip().endswith("*") for part in class_name.split(":"))


def is_region(class_name: str | None) -> bool:
    """Return whether a class is QuPath's ``Region*``, or derived from it."""
    return class_name is not None and class_name.split(":")[0].strip() == "Region*"
