"""The features of a GeoJSON file, whichever way they are wrapped."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sampath_wsi.errors import AnnotationError

# Larger files than QuPath itself could load are a mistake, or made to fill the memory.
MAX_BYTES = 2**31
_GEOMETRIES = {
    "Point",
    "MultiPoint",
    "LineString",
    "MultiLineString",
    "Polygon",
    "MultiPolygon",
    "GeometryCollection",
}


def load_features(path: Path) -> list[dict[str, Any]]:
    """All features of a file, in its order; a bare geometry counts as a feature without properties.

    Raises
    ------
    AnnotationError
        If the file cannot be read or is not GeoJSON.
    """
    try:
        document = json.loads(_read(path), parse_constant=_refuse_constant)
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


def _read(path: Path) -> str:
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        stream = gzip.GzipFile(fileobj=file) if packed else file
        data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise AnnotationError(f"{path}: more than {MAX_BYTES >> 30} GiB of GeoJSON", "Split it into smaller files.")
    return data.decode("utf-8-sig")


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number in JSON")


def _unwrap(document: object, nested: bool) -> Iterator[dict[str, Any]]:
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
    elif kind in _GEOMETRIES:
        yield {"type": "Feature", "geometry": document}
    else:
        raise ValueError(f"{kind[:40]!r} is not a type of GeoJSON")
