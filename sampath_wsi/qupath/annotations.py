"""Annotations read from the GeoJSON that QuPath (and tools that imitate it) exports, in all the forms it has had."""

from __future__ import annotations

import gzip
import json
import logging
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import shapely
from shapely.geometry.base import BaseGeometry

from sampath_wsi.errors import AnnotationError
from sampath_wsi.qupath.shapes import COLLECTION, KINDS, parse_geometry

log = logging.getLogger(__name__)

Colour = tuple[int, int, int]
Json = Mapping[str, object]

# Larger files than QuPath itself could load are a mistake, or made to fill the memory.
_MAX_BYTES = 2**31
# Stands for every object of a file that nobody asked for.
_UNWANTED: Json = {"type": "Feature"}
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


@dataclass(frozen=True)
class Objects:
    """The objects of a file: those that could be read, how many there are, and how many nobody asked for."""

    annotations: tuple[Annotation, ...]
    count: int
    unwanted: int
    warnings: tuple[str, ...]


def read_annotations(path: Path, *, max_bytes: int = _MAX_BYTES) -> list[Annotation]:
    """Read all objects of a ``.geojson``, ``.json`` or ``.geojson.gz`` file as :func:`read_objects`, and log warnings.

    Raises
    ------
    AnnotationError
        See :func:`read_objects`.
    """
    objects = read_objects(path, max_bytes=max_bytes)
    for warning in objects.warnings:
        log.warning(warning)
    return list(objects.annotations)


def read_objects(path: Path, object_type: str | None = None, *, max_bytes: int = _MAX_BYTES) -> Objects:
    """Read the objects of a file: a Feature, a list, or a FeatureCollection.

    An object that cannot be read is left out, and a colour that is none is ignored, with one warning that counts.

    Parameters
    ----------
    object_type
        Return only objects of this type, such as ``annotation``; others take little time and no memory.

    Raises
    ------
    AnnotationError
        If the file cannot be read, holds more than ``max_bytes`` of JSON, or none of its objects can be read.
    """
    path = Path(path)
    annotations: list[Annotation] = []
    unreadable: list[str] = []
    odd_colours: list[str] = []
    features = _load_features(path, max_bytes, object_type)
    unwanted = sum(feature is _UNWANTED for feature in features)
    for index, feature in enumerate(features):
        if feature is _UNWANTED:
            continue
        try:
            annotation, odd_colour = _annotation(feature)
        except (ValueError, TypeError, OverflowError, RecursionError, shapely.errors.ShapelyError) as error:
            unreadable.append(f"feature {index}: {str(error)[:200]}")
            continue
        annotations.append(annotation)
        odd_colours += [f"feature {index}: {odd_colour} is not a colour"] if odd_colour else []
    if unreadable and not annotations and not unwanted:
        raise AnnotationError(f"{path}: {unreadable[0]}", "Correct or remove that object and export again.")
    counted = ((unreadable, "cannot be read: left out"), (odd_colours, "have a colour that is none: it is ignored"))
    warnings = [
        f"{path}: of {len(features)} objects {len(found)} {what} (the first is {found[0]})"
        for found, what in counted
        if found
    ]
    return Objects(tuple(annotations), len(features), unwanted, tuple(warnings))


def _load_features(path: Path, max_bytes: int, object_type: str | None) -> list[Json]:
    """Return all features of a file, in its order; a bare geometry counts as a feature without properties.

    NaN and infinity, which QuPath writes among measurements, count as nothing.
    """
    hook = None if object_type is None else _keep_only(object_type)
    try:
        document = json.loads(_read_text(path, max_bytes), parse_constant=lambda _: None, object_hook=hook)
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


def _keep_only(object_type: str) -> Callable[[dict[str, object]], Json]:
    """Return a hook for JSON that replaces features of other types as soon as they are read."""

    def hook(fields: dict[str, object]) -> Json:
        if fields.get("type") != "Feature":
            return fields
        properties = fields.get("properties")
        if not (properties is None or isinstance(properties, dict)):
            return fields
        try:
            return fields if _object_type(fields, properties or {}) == object_type else _UNWANTED
        except TypeError:  # is told of when the feature is read
            return fields

    return hook


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
    elif kind in KINDS or kind == COLLECTION:
        yield {"type": "Feature", "geometry": document}
    else:
        raise ValueError(f"{kind[:40]!r} is not a type of GeoJSON")


def _annotation(feature: Json) -> tuple[Annotation, str | None]:
    """Return a feature's object, and its colour where that is none."""
    properties = _mapping(feature.get("properties"), "properties")
    geometry, repaired = parse_geometry(feature.get("geometry"))
    nucleus = feature.get("nucleusGeometry", properties.get("nucleusGeometry"))
    class_name, class_fields = _classification(properties.get("classification"))
    colours = [_colour(fields) for fields in (class_fields, properties)]
    name = properties.get("name")
    annotation = Annotation(
        geometry=geometry,
        class_name=class_name,
        colour=next((colour for colour in colours if isinstance(colour, tuple)), None),
        object_type=_object_type(feature, properties),
        name=None if name is None else str(name),
        nucleus=None if nucleus is None else parse_geometry(nucleus)[0],
        repaired=repaired,
    )
    return annotation, next((colour for colour in colours if isinstance(colour, str)), None)


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


def _classification(value: object) -> tuple[str | None, Json]:
    """Return the name of a class, and the fields that may hold its colour.

    The class may be written as an object, as its name, or as the text of the object (as GeoPandas exports it).
    """
    if isinstance(value, str):
        if not value.lstrip().startswith("{"):
            return value.strip() or None, {}
        value = json.loads(value, parse_constant=lambda _: None)
    fields = _mapping(value, "classification")
    name, names = fields.get("name"), fields.get("names")
    if names is not None:
        if not isinstance(names, list) or not all(isinstance(each, str) for each in names):
            raise TypeError("the names of its classification are not a list of texts")
        name = ": ".join(names)
    if name is not None and not isinstance(name, str):
        raise TypeError("the name of its classification is not a text")
    return (name or "").strip() or None, fields


def _colour(fields: Json) -> Colour | str | None:
    """Return ``color``, a list or a number, or ``colorRGB``, a number whose lower three bytes are red, green, blue.

    What is none of these is returned as text.
    """
    value = fields.get("color", fields.get("colorRGB"))
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return value >> 16 & 255, value >> 8 & 255, value & 255
    if isinstance(value, list) and len(value) >= 3 and all(type(v) is int and 0 <= v <= 255 for v in value[:3]):
        return value[0], value[1], value[2]
    return repr(str(value)[:40])
