"""Checks GeoJSON files against the rules that all versions of QuPath's reader share.

Independent of the package: written from the rules, with json, gzip and shapely alone. Run it as
``python tests/geojson_validator.py FILE...``; it prints every violation and exits with 1 if there is any.
"""

from __future__ import annotations

import gc
import gzip
import json
import math
import sys
import uuid
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import shapely

OBJECT_TYPES = {"annotation", "detection", "tile", "cell"}
# QuPath rounds to hundredths of a pixel; what has no area then shows as a rectangle of size zero.
DECIMALS = 2
MIN_AREA_PX2 = 1e-4
FIRST = 50


class _Problems(list[str]):
    """Violations, each with the place where it is."""

    def check(self, fine: bool, place: str, rule: str) -> bool:
        if not fine:
            self.append(f"{place}: {rule}")
        return fine


def validate(path: Path) -> list[str]:
    """All violations in a file; an empty list means that QuPath 0.4 to 0.7 load it."""
    # Millions of small objects are made and none of them refers to itself: looking for such takes half of the time.
    collecting = gc.isenabled()
    gc.disable()
    try:
        return _validate(Path(path))
    finally:
        if collecting:
            gc.enable()


def _validate(path: Path) -> list[str]:
    problems = _Problems()
    name = path.name
    problems.check(name.endswith((".geojson", ".json", ".geojson.gz")), name, "QuPath does not know this suffix")
    document = _load(path, problems)
    if problems.check(isinstance(document, dict), name, "not a JSON object"):
        problems.check(document.get("type") == "FeatureCollection", name, "not a FeatureCollection")
        features = document.get("features")
        if problems.check(isinstance(features, list), name, "features is not a list"):
            _check_features(features, problems)
    return list(problems)


def _load(path: Path, problems: _Problems) -> Any:
    def refuse(constant: str) -> None:
        problems.append(f"{path.name}: {constant} is not strict JSON")

    def checked(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            problems.append(f"{path.name}: a key occurs twice in {[key for key, _ in pairs]}")
        for key, value in pairs:
            if value is None or (type(value) is list and key != "coordinates" and _holds_null(value)):
                problems.append(f"{path.name}: contains null in {str(found)[:200]}")
                break
        return found

    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
        return json.loads(text, parse_constant=refuse, object_pairs_hook=checked)
    except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
        problems.append(f"{path.name}: {type(error).__name__}: {error}")
        return None


def _check_features(features: list[Any], problems: _Problems) -> None:
    ids: set[str] = set()
    geometries: list[tuple[str, Any]] = []
    for index, feature in enumerate(features):
        place = f"feature {index}"
        if not problems.check(isinstance(feature, dict) and feature.get("type") == "Feature", place, "not a Feature"):
            continue
        _check_id(feature.get("id"), ids, place, problems)
        properties = feature.get("properties")
        if problems.check(isinstance(properties, dict), place, "properties is not an object"):
            _check_properties(properties, place, problems)
        geometry = _check_structure(feature.get("geometry"), place, problems)
        if geometry is not None:
            geometries.append((place, geometry))
    _check_geometries(geometries, problems)


def _check_id(value: Any, ids: set[str], place: str, problems: _Problems) -> None:
    try:
        canonical = str(uuid.UUID(value))
    except (ValueError, TypeError, AttributeError):
        problems.append(f"{place}: id is not a UUID")
        return
    problems.check(canonical == str(value).lower(), place, "id is not a UUID in its usual form")
    problems.check(canonical not in ids, place, "id occurs twice")
    ids.add(canonical)


def _holds_null(values: list[Any]) -> bool:
    """Whether null is in a list or in lists within it; objects in it have been looked at when they were read."""
    return any(value is None or (type(value) is list and _holds_null(value)) for value in values)


def _check_properties(properties: dict[str, Any], place: str, problems: _Problems) -> None:
    problems.check(properties.get("objectType") in OBJECT_TYPES, place, "objectType is missing or unknown")
    problems.check(isinstance(properties.get("isLocked"), bool), place, "isLocked is not a boolean")
    problems.check(isinstance(properties.get("name"), str), place, "name is not a text")
    _check_classification(properties.get("classification"), place, problems)
    measurements = properties.get("measurements")
    if problems.check(isinstance(measurements, dict), place, "measurements is not an object"):
        for key in [key for key, value in measurements.items() if not _is_number(value)]:
            problems.append(f"{place}: measurement {key!r} is not a finite number")
    metadata = properties.get("metadata", {})
    texts = isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())
    problems.check(texts, place, "metadata is not an object of texts")


def _check_classification(value: Any, place: str, problems: _Problems) -> None:
    if not problems.check(isinstance(value, dict), place, "classification is not an object"):
        return
    name, color = value.get("name"), value.get("color")
    if problems.check(isinstance(name, str) and bool(name.strip()), place, "class name is missing or blank"):
        problems.check(":" not in name, place, "':' in the class name makes it a derived class")
        problems.check(not name.endswith("*"), place, "an ignored class ('*') makes no objects")
    rgb = isinstance(color, list) and len(color) == 3
    rgb = rgb and all(isinstance(v, int) and not isinstance(v, bool) and 0 <= v <= 255 for v in color)
    problems.check(rgb, place, "color of the class is not three numbers from 0 to 255")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_structure(geometry: Any, place: str, problems: _Problems) -> Any:
    """Parts, as lists of rings with coordinates rounded as QuPath does; None if the geometry's structure is wrong."""
    if not problems.check(isinstance(geometry, dict), place, "geometry is not an object"):
        return None
    kind, coordinates = geometry.get("type"), geometry.get("coordinates")
    if not problems.check(kind in ("Polygon", "MultiPolygon"), place, f"geometry of type {kind!r}"):
        return None
    parts = [coordinates] if kind == "Polygon" else coordinates
    if not problems.check(isinstance(parts, list) and bool(parts), place, "no coordinates"):
        return None
    problems.check(kind == "Polygon" or len(parts) > 1, place, "a MultiPolygon with a single part")
    polygons = [_polygon(part, place, problems) for part in parts]
    return None if any(polygon is None for polygon in polygons) else polygons


def _polygon(rings: Any, place: str, problems: _Problems) -> Any:
    if not problems.check(isinstance(rings, list) and bool(rings), place, "a part without rings"):
        return None
    rounded = [_ring(ring, place, problems) for ring in rings]
    return None if any(ring is None for ring in rounded) else rounded


def _ring(ring: Any, place: str, problems: _Problems) -> Any:
    if not problems.check(isinstance(ring, list) and len(ring) >= 4, place, "a ring of fewer than four positions"):
        return None
    try:
        xy = np.array(ring)
    except ValueError:
        xy = np.empty(0)
    plain = xy.ndim == 2 and xy.shape[1] == 2 and xy.dtype.kind in "if" and math.isfinite(xy.sum())
    if not problems.check(plain, place, "a position is not two finite numbers"):
        return None
    if not problems.check(ring[0] == ring[-1], place, "a ring is not closed"):
        return None
    rounded = np.round(xy, DECIMALS)
    problems.check(np.array_equal(rounded, xy), place, "more than two decimals")
    return rounded


def _check_geometries(placed: list[tuple[str, Any]], problems: _Problems) -> None:
    if not placed:
        return
    geometries = _built([geometry for _, geometry in placed])
    for index in np.flatnonzero(~shapely.is_valid(geometries))[:FIRST]:
        reason = shapely.is_valid_reason(geometries[index])
        problems.append(f"{placed[index][0]}: invalid once rounded to {DECIMALS} decimals: {reason}")
    parts, owner = shapely.get_parts(geometries, return_index=True)
    for index in sorted(set(owner[shapely.area(parts) < MIN_AREA_PX2].tolist()))[:FIRST]:
        problems.append(f"{placed[index][0]}: a part without area")


def _built(geometries: list[Any]) -> Any:
    """All geometries from their parts' rings, built together: one by one takes ten times as long."""
    rings = [ring for parts in geometries for part in parts for ring in part]
    parts = [part for parts in geometries for part in parts]
    ring_of_point = np.repeat(np.arange(len(rings)), [len(ring) for ring in rings])
    part_of_ring = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    owner_of_part = np.repeat(np.arange(len(geometries)), [len(parts) for parts in geometries])
    built = shapely.linearrings(np.concatenate(rings), indices=ring_of_point)
    return shapely.multipolygons(shapely.polygons(built, indices=part_of_ring), indices=owner_of_part)


if __name__ == "__main__":
    found = [f"{file}: {problem}" for file in sys.argv[1:] for problem in validate(Path(file))]
    print("\n".join(found) or "no violations")
    sys.exit(bool(found))
