"""Geometry in the form that QuPath accepts: two decimals, valid as written, a MultiPolygon only for several parts."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

DECIMALS = 2
_GRID_PX = 10.0**-DECIMALS
# What is smaller than a few cells of the grid of coordinates would show as a rectangle of size zero.
_LEAST_AREA_PX2 = 4 * _GRID_PX**2


def rounded_for_qupath(polygons: NDArray[np.object_]) -> list[Polygon | MultiPolygon | None]:
    """Round coordinates to two decimals so that every result is still valid.

    QuPath 0.6 and later round on reading and reject the whole file for one polygon that this makes invalid. The rare
    such polygon is snapped to the grid of the rounded coordinates, which moves its border by no more than the rounding.

    Parameters
    ----------
    polygons
        Valid polygons and multipolygons in level-0 pixels.

    Returns
    -------
    A Polygon where one part is left, a MultiPolygon for two or more, None where nothing is.
    """
    rounded = shapely.transform(polygons, _round)
    usable = _least_part_area(rounded) >= _LEAST_AREA_PX2
    moved = _has_moved(polygons, rounded)
    usable[moved] &= shapely.is_valid(rounded[moved])
    return [_canonical(rounded[k] if good else _repaired(polygons[k])) for k, good in enumerate(usable.tolist())]


def _round(xy: NDArray[np.float64]) -> NDArray[np.float64]:
    # Adding zero turns -0.0 into 0.0.
    return np.round(xy, DECIMALS) + 0.0


def _has_moved(before: NDArray[np.object_], after: NDArray[np.object_]) -> NDArray[np.bool_]:
    """Whether rounding moved any coordinate: a valid polygon that stays as it is needs no second look."""
    old, owner = shapely.get_coordinates(before, return_index=True)
    moved = np.zeros(len(before), dtype=np.bool_)
    moved[owner[(old != shapely.get_coordinates(after)).any(axis=1)]] = True
    return moved


def _least_part_area(geometries: NDArray[np.object_]) -> NDArray[np.float64]:
    parts, owner = shapely.get_parts(geometries, return_index=True)
    least = np.full(len(geometries), np.inf)
    np.minimum.at(least, owner, shapely.area(parts))
    return np.where(np.isinf(least), 0.0, least)


def _canonical(geometry: BaseGeometry | None) -> Polygon | MultiPolygon | None:
    """A MultiPolygon of one part as the Polygon that it is."""
    if isinstance(geometry, MultiPolygon) and len(geometry.geoms) == 1:
        return geometry.geoms[0]
    assert geometry is None or isinstance(geometry, Polygon | MultiPolygon)
    return geometry


def _repaired(geometry: BaseGeometry) -> BaseGeometry | None:
    """The geometry on the grid of rounded coordinates, or None if nothing of it can be kept there."""
    snapped = shapely.set_precision(geometry, _GRID_PX)
    for _ in range(4):
        parts = [part for part in shapely.get_parts(snapped).tolist() if isinstance(part, Polygon)]
        parts = [part for part in parts if part.area >= _LEAST_AREA_PX2]
        if not parts:
            return None
        rounded: BaseGeometry = shapely.transform(MultiPolygon(parts), _round)
        if shapely.is_valid(rounded):
            return rounded
        snapped = shapely.set_precision(shapely.make_valid(rounded), _GRID_PX)
    return None
