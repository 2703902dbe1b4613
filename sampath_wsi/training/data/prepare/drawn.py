"""The labels that annotations of a slide give to any rectangle of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from sampath_wsi.errors import DataError
from sampath_wsi.geometry import Box
from sampath_wsi.qupath.drawing import Drawing, is_ignored, is_region
from sampath_wsi.qupath.shapes import flat_parts, polygonal
from sampath_wsi.training.data.prepare.label_map import LabelMap


def label_drawing(drawing: Drawing, label_map: LabelMap) -> tuple[Painter, list[str]]:
    """Give every area its label, within ``Region*`` where there is one, and warn how many were left out.

    A class of the label map is one whatever its name.

    Raises
    ------
    DataError
        Naming the file and a class that the label map does not know.
    """
    areas, labels, regions, unclassified = [], [], list[BaseGeometry](), 0
    for annotation in drawing.annotations:
        name = annotation.class_name or label_map.unclassified
        if name is None:
            unclassified += 1
            continue
        if is_region(name) and name not in label_map.label_of_name:
            regions.append(annotation.geometry)
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
    limit = shapely.union_all(regions) if regions else None
    beyond = sum(not area.intersects(limit) for area in areas) if limit is not None else 0
    counted = ((unclassified, "have no class"), (beyond, "lie outside of Region*"))
    warnings = [f"{drawing.path}: {count} annotations {what}: left out" for count, what in counted if count]
    return Painter(areas, labels, limit), warnings


class Painter:
    """Labels of rectangles of one slide: of overlapping annotations the smaller is on top, of equal ones the later.

    Parameters
    ----------
    areas_level0_px
        Polygons and multipolygons, in the order of their file.
    labels
        Label of each: 0 clears what lies below.
    limit_level0_px
        Nothing is labelled outside of it.
    """

    def __init__(
        self,
        areas_level0_px: Sequence[BaseGeometry],
        labels: Sequence[int],
        limit_level0_px: BaseGeometry | None = None,
    ) -> None:
        order = sorted(range(len(labels)), key=lambda k: -areas_level0_px[k].area)
        limited = [
            area if limit_level0_px is None else polygonal(area.intersection(limit_level0_px))
            for area in areas_level0_px
        ]
        order = [k for k in order if not limited[k].is_empty]
        self._areas = [limited[k] for k in order]
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
