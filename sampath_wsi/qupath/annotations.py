"""Annotations read from the GeoJSON that QuPath (and tools that imitate it) exports, in all the forms it has had."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import shapely
from shapely.geometry.base import BaseGeometry

from sampath_wsi.errors import AnnotationError
from sampath_wsi.qupath.documents import load_features
from sampath_wsi.qupath.shapes import geometry_from_json

Colour = tuple[int, int, int]
# QuPath 0.1 to 0.2 wrote the kind of object in place of an identifier.
_TYPE_OF_ID = {
    "PathAnnotationObject": "annotation",
    "PathDetectionObject": "detection",
    "PathTileObject": "tile",
    "PathCellObject": "cell",
    "TMACoreObject": "tma_core",
}


@dataclass(frozen=True)
class Annotation:
    """One object of a file.

    Parameters
    ----------
    geometry
        Valid, two-dimensional, in the coordinates of the file: level-0 pixels of the frame that QuPath shows (it crops
        to the slide's bounds where there are any). An ellipse is a polygon of many sides.
    class_name
        None if unclassified; the parts of a derived class are joined by ``": "``, as in QuPath.
    colour
        RGB of the class, or else of the object itself; None if the file has neither.
    object_type
        ``annotation`` where the file does not say.
    name
        The object's own name, if any.
    nucleus
        Of a cell.
    repaired
        Whether the file's polygon was invalid (a bow-tie, say) and was mended; its area may differ from what was drawn.
    """

    geometry: BaseGeometry
    class_name: str | None
    colour: Colour | None
    object_type: str
    name: str | None
    nucleus: BaseGeometry | None = None
    repaired: bool = False

    @property
    def has_area(self) -> bool:
        """False for points and lines, which cannot be trained on or limit a region."""
        return float(self.geometry.area) > 0


def read_annotations(path: Path) -> list[Annotation]:
    """Read all objects of a ``.geojson``, ``.json`` or ``.geojson.gz`` file: a Feature, a list, or a FeatureCollection.

    Raises
    ------
    AnnotationError
        If the file cannot be read, or an object in it makes no sense; nothing is left out silently.
    """
    path = Path(path)
    annotations: list[Annotation] = []
    for index, feature in enumerate(load_features(path)):
        try:
            annotations.append(_annotation(feature))
        except (ValueError, TypeError, OverflowError, RecursionError, shapely.errors.ShapelyError) as error:
            raise AnnotationError(
                f"{path}: feature {index}: {str(error)[:200]}", "Correct or remove that object and export again."
            ) from None
    return annotations


def _annotation(feature: Mapping[str, Any]) -> Annotation:
    properties = _mapping(feature.get("properties"), "properties")
    geometry, repaired = geometry_from_json(feature.get("geometry"))
    nucleus = feature.get("nucleusGeometry", properties.get("nucleusGeometry"))
    class_name, class_colour = _classification(properties.get("classification"))
    name = properties.get("name")
    return Annotation(
        geometry=geometry,
        class_name=class_name,
        colour=class_colour or _colour(properties),
        object_type=_object_type(feature, properties),
        name=None if name is None else str(name),
        nucleus=None if nucleus is None else geometry_from_json(nucleus)[0],
        repaired=repaired,
    )


def _mapping(value: object, what: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(f"{what} is not an object")
    return value


def _object_type(feature: Mapping[str, Any], properties: Mapping[str, Any]) -> str:
    for key in ("objectType", "object_type"):
        value = properties.get(key)
        if value is not None:
            if not isinstance(value, str):
                raise TypeError(f"its {key} is not a text")
            return value.lower()
    return _TYPE_OF_ID.get(str(feature.get("id")), "annotation")


def _classification(value: object) -> tuple[str | None, Colour | None]:
    if value is None or isinstance(value, str):
        return _class_name(value), None
    fields = _mapping(value, "classification")
    names = fields.get("names")
    if names is not None:
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise TypeError("the names of its classification are not a list of texts")
        return _class_name(": ".join(names)), _colour(fields)
    name = fields.get("name")
    if name is not None and not isinstance(name, str):
        raise TypeError("the name of its classification is not a text")
    return _class_name(name), _colour(fields)


def _class_name(name: str | None) -> str | None:
    return name.strip() or None if name is not None else None


def _colour(fields: Mapping[str, Any]) -> Colour | None:
    """``color`` as a list or a number, or ``colorRGB``, a number whose lower three bytes are red, green and blue."""
    value = fields.get("color", fields.get("colorRGB"))
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return value >> 16 & 255, value >> 8 & 255, value & 255
    if isinstance(value, list) and len(value) >= 3 and all(type(v) is int and 0 <= v <= 255 for v in value[:3]):
        return value[0], value[1], value[2]
    raise ValueError(f"{str(value)[:40]!r} is not a colour")
