"""Annotations read from the GeoJSON that QuPath (and tools that imitate it) exports, in all the forms it has had."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import geojson
import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from sampath_wsi.errors import AnnotationError

Colour = tuple[int, int, int]
Json = Mapping[str, object]

# Larger files than QuPath itself could load are a mistake, or made to fill the memory.
_MAX_BYTES = 2**31
_MAX_DEPTH = 8
_ELLIPSE_SIDES = 256
_COLLECTION = "GeometryCollection"
_KINDS = {
    kind.__name__: kind
    for kind in (
        geojson.Point,
        geojson.MultiPoint,
        geojson.LineString,
        geojson.MultiLineString,
        geojson.Polygon,
        geojson.MultiPolygon,
    )
}
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
        Whether the file's polygon was invalid (a bow-tie, say) and was mended; its area may differ from the drawn one.
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


def read_annotations(path: Path, *, max_bytes: int = _MAX_BYTES) -> list[Annotation]:
    """Read all objects of a ``.geojson``, ``.json`` or ``.geojson.gz`` file: a Feature, a list, or a FeatureCollection.

    Raises
    ------
    AnnotationError
        If the file cannot be read or holds more than ``max_bytes`` of JSON, or an object in it makes no sense; nothing
        is left out silently.
    """
    path = Path(path)
    annotations: list[Annotation] = []
    for index, feature in enumerate(_load_features(path, max_bytes)):
        try:
            annotations.append(_annotation(feature))
        except (ValueError, TypeError, OverflowError, RecursionError, shapely.errors.ShapelyError) as error:
            raise AnnotationError(
                f"{path}: feature {index}: {str(error)[:200]}", "Correct or remove that object and export again."
            ) from None
    return annotations


def flat_parts(geometry: BaseGeometry) -> list[BaseGeometry]:
    """Return the simple geometries of a collection, however deeply nested; a simple one by itself."""
    members = getattr(geometry, "geoms", None)
    return [geometry] if members is None else [part for member in members for part in flat_parts(member)]


def _load_features(path: Path, max_bytes: int) -> list[Json]:
    """Return all features of a file, in its order; a bare geometry counts as a feature without properties."""
    try:
        document = json.loads(_read_text(path, max_bytes), parse_constant=_refuse_constant)
    except AnnotationError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise AnnotationError(f"{path}: cannot be read ({reason})", "Check the path and the file.") from None
    except (EOFError, zlib.error):
        raise AnnotationError(f"{path}: the compressed file is damaged", "Copy or export it again.") from None
    except RecursionError:
        raise AnnotationError(f"{path}: brackets are nested too deeply for GeoJSON", "Export it again.") from None
    except ValueError as error:
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error)
        raise AnnotationError(f"{path}: not valid JSON ({reason})", "Export it from QuPath as GeoJSON.") from None
    try:
        return list(_unwrap(document, nested=False))
    except ValueError as error:
        raise AnnotationError(f"{path}: {error}", "Export it from QuPath as GeoJSON.") from None


def _read_text(path: Path, max_bytes: int) -> str:
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        stream = gzip.GzipFile(fileobj=file) if packed else file
        data = stream.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise AnnotationError(f"{path}: more than {max_bytes >> 30} GiB of GeoJSON", "Split it into smaller files.")
    return data.decode("utf-8-sig")


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number in JSON")


def _unwrap(document: object, nested: bool) -> Iterator[Json]:
    if isinstance(document, list) and not nested:
        for element in document:
            yield from _unwrap(element, nested=True)
        return
    if not isinstance(document, dict):
        raise ValueError("there is something other than a feature where a feature should be")
    kind = str(document.get("type"))
    if kind == "FeatureCollection":
        features = document.get("features")
        if not isinstance(features, list) or not all(
            isinstance(f, dict) and f.get("type") == "Feature" for f in features
        ):
            raise ValueError("the features of its FeatureCollection are not a list of features")
        yield from features
    elif kind == "Feature":
        yield document
    elif kind in _KINDS or kind == _COLLECTION:
        yield {"type": "Feature", "geometry": document}
    else:
        raise ValueError(f"{kind[:40]!r} is not a type of GeoJSON")


def _annotation(feature: Json) -> Annotation:
    properties = _mapping(feature.get("properties"), "properties")
    geometry, repaired = _geometry(feature.get("geometry"))
    nucleus = feature.get("nucleusGeometry", properties.get("nucleusGeometry"))
    class_name, class_colour = _classification(properties.get("classification"))
    name = properties.get("name")
    return Annotation(
        geometry=geometry,
        class_name=class_name,
        colour=class_colour or _colour(properties),
        object_type=_object_type(feature, properties),
        name=None if name is None else str(name),
        nucleus=None if nucleus is None else _geometry(nucleus)[0],
        repaired=repaired,
    )


def _mapping(value: object, what: str) -> Json:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(f"{what} is not an object")
    return value


def _object_type(feature: Json, properties: Json) -> str:
    for key in ("objectType", "object_type"):
        value = properties.get(key)
        if value is not None:
            if not isinstance(value, str):
                raise TypeError(f"its {key} is not a text")
            return value.lower()
    return _TYPE_OF_ID.get(str(feature.get("id")), "annotation")


def _classification(value: object) -> tuple[str | None, Colour | None]:
    if isinstance(value, str):
        return value.strip() or None, None
    fields = _mapping(value, "classification")
    name, names = fields.get("name"), fields.get("names")
    if names is not None:
        if not isinstance(names, list) or not all(isinstance(each, str) for each in names):
            raise TypeError("the names of its classification are not a list of texts")
        name = ": ".join(names)
    if name is not None and not isinstance(name, str):
        raise TypeError("the name of its classification is not a text")
    return (name or "").strip() or None, _colour(fields)


def _colour(fields: Json) -> Colour | None:
    """Return ``color``, a list or a number, or ``colorRGB``, a number whose lower three bytes are red, green, blue."""
    value = fields.get("color", fields.get("colorRGB"))
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return value >> 16 & 255, value >> 8 & 255, value & 255
    if isinstance(value, list) and len(value) >= 3 and all(type(v) is int and 0 <= v <= 255 for v in value[:3]):
        return value[0], value[1], value[2]
    raise ValueError(f"{str(value)[:40]!r} is not a colour")


def _geometry(value: object) -> tuple[BaseGeometry, bool]:
    """Return a geometry as QuPath understands it, valid and two-dimensional, and whether it had to be repaired.

    Raises
    ------
    ValueError, TypeError
        If it is not a geometry, or an empty one.
    """
    geometry = shapely.force_2d(_parse(value, _MAX_DEPTH))
    if shapely.is_empty(geometry) or not np.isfinite(shapely.get_coordinates(geometry)).all():
        raise ValueError("its geometry is empty or not finite")
    if isinstance(value, Mapping) and value.get("isEllipse") is True:
        return _ellipse(geometry), False
    if shapely.is_valid(geometry):
        return geometry, False
    valid = shapely.make_valid(geometry)
    # Areas make lines and points beside them superfluous.
    areas = [part for part in flat_parts(valid) if part.geom_type == "Polygon"]
    return (shapely.union_all(areas) if areas else valid), True


def _parse(value: object, depth: int) -> BaseGeometry:
    if not isinstance(value, Mapping):
        raise TypeError("it has no geometry")
    kind = value.get("type")
    if kind == _COLLECTION:
        members = value.get("geometries")
        if depth == 0 or not isinstance(members, list):
            raise ValueError("its GeometryCollection is nested too deeply or has no geometries")
        return shapely.GeometryCollection([_parse(member, depth - 1) for member in members])
    if kind not in _KINDS:
        raise ValueError(f"its geometry has the type {str(kind)[:40]!r}")
    coordinates = value.get("coordinates")
    if not isinstance(coordinates, list) or not coordinates:
        raise ValueError("its geometry has no coordinates")
    if kind == "Polygon":
        coordinates = _closed(coordinates)
    elif kind == "MultiPolygon":
        coordinates = [_closed(part) for part in coordinates]
    parsed = _KINDS[kind](coordinates=coordinates)
    if problem := parsed.errors():
        raise ValueError(f"its {kind}: {problem}")
    return shapely.geometry.shape(parsed)


def _closed(rings: object) -> object:
    """Close rings that do not end where they began, as some tools write them; leave anything else to the checks."""
    if not isinstance(rings, list):
        return rings
    return [
        [*ring, ring[0]] if isinstance(ring, list) and len(ring) >= 3 and ring[0] != ring[-1] else ring
        for ring in rings
    ]


def _ellipse(geometry: BaseGeometry) -> BaseGeometry:
    """Return the ellipse within the polygon's bounds: QuPath reads nothing else of a polygon with ``isEllipse``."""
    left, top, right, bottom = geometry.bounds
    angle = np.linspace(0, 2 * np.pi, _ELLIPSE_SIDES, endpoint=False)
    x = (left + right) / 2 + (right - left) / 2 * np.cos(angle)
    y = (top + bottom) / 2 + (bottom - top) / 2 * np.sin(angle)
    return shapely.Polygon(np.stack([x, y], axis=1))
