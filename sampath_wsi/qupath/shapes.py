"""Geometries of GeoJSON as QuPath understands them: valid, two-dimensional, ellipses as polygons."""

from __future__ import annotations

from collections.abc import Mapping

import geojson
import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

_MAX_DEPTH = 8
_ELLIPSE_SIDES = 256
COLLECTION = "GeometryCollection"
KINDS = {
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


def flat_parts(geometry: BaseGeometry) -> list[BaseGeometry]:
    """Return the simple geometries of a collection, however deeply nested; a simple one by itself."""
    members = getattr(geometry, "geoms", None)
    return [geometry] if members is None else [part for member in members for part in flat_parts(member)]


def polygonal(geometry: BaseGeometry) -> BaseGeometry:
    """Return what of a geometry has an area, as one polygon or multipolygon; empty if nothing has."""
    polygons = [part for part in flat_parts(geometry) if part.area > 0]
    return polygons[0] if len(polygons) == 1 else shapely.union_all(polygons)


def parse_geometry(value: object) -> tuple[BaseGeometry, bool]:
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
    if kind == COLLECTION:
        members = value.get("geometries")
        if depth == 0 or not isinstance(members, list):
            raise ValueError("its GeometryCollection is nested too deeply or has no geometries")
        return shapely.GeometryCollection([_parse(member, depth - 1) for member in members])
    if kind not in KINDS:
        raise ValueError(f"its geometry has the type {str(kind)[:40]!r}")
    coordinates = value.get("coordinates")
    if not isinstance(coordinates, list) or not coordinates:
        raise ValueError("its geometry has no coordinates")
    if kind == "Polygon":
        coordinates = _closed(coordinates)
    elif kind == "MultiPolygon":
        coordinates = [_closed(part) for part in coordinates]
    parsed = KINDS[kind](coordinates=coordinates)
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
