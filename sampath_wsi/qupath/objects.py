"""Objects written for QuPath: geometry in the form that it accepts, and one GeoJSON FeatureCollection a file."""

from __future__ import annotations

import gzip
import io
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Literal
from uuid import UUID

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

from sampath_wsi.classes import TissueClass
from sampath_wsi.errors import ConfigError
from sampath_wsi.files import open_alone

ObjectType = Literal["annotation", "detection"]
DECIMALS = 2
_GRID_PX = 10.0**-DECIMALS
# Parts smaller than a few cells of the grid of coordinates would show as a rectangle of size zero.
_LEAST_AREA_PX2 = 4 * _GRID_PX**2
# The names that every version of QuPath reads; it does not recognise a bare ".gz".
SUFFIXES = (".geojson", ".json", ".geojson.gz")
_JSON = json.JSONEncoder(allow_nan=False, separators=(",", ":"))
# Three times as fast as zlib's usual 6, for 4 to 7 % more bytes.
_GZIP_LEVEL = 4
_BUFFER_BYTES = 2**20


def encode_object(
    geometry: Polygon | MultiPolygon,
    *,
    uuid: UUID,
    tissue_class: TissueClass,
    object_type: ObjectType | Literal["tile"],
    name: str,
    measurements: Mapping[str, float],
) -> bytes:
    """Return one GeoJSON feature, strict JSON in ASCII.

    Annotations are locked, as those of QuPath's own pixel classifier are, so that a stray click does not move them.

    Parameters
    ----------
    geometry
        As :func:`rounded_for_qupath` returns it, in level-0 pixels of the frame that QuPath shows.
    measurements
        Finite numbers.

    Raises
    ------
    ValueError
        If a measurement is not finite.
    """
    properties = {
        "objectType": object_type,
        "classification": {"name": tissue_class.name, "color": list(tissue_class.color)},
        "isLocked": object_type == "annotation",
        "name": name,
        "measurements": dict(measurements),
    }
    encoded = _JSON.encode(properties)
    text = f'{{"type":"Feature","id":"{uuid}","geometry":{shapely.to_geojson(geometry)},"properties":{encoded}}}'
    return text.encode("ascii")


class ObjectWriter:
    """Writes encoded features to a file, gzipped if its name ends in ``.gz``; equal features give equal bytes.

    The file grows aside and is put in place when the ``with`` block ends without an error; after an error nothing is
    left.

    Raises
    ------
    ConfigError
        If QuPath would not recognise the name of the file.
    StoreError
        When the block is entered, if another process is writing the same file.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        if not self.path.name.endswith(SUFFIXES):
            raise ConfigError(
                f"{self.path}: QuPath does not recognise this name as GeoJSON",
                f"End it in one of {', '.join(SUFFIXES)}.",
            )
        self.count = 0
        self.json_bytes = 0
        self._aside = self.path.with_name(f".{self.path.name}.partial")
        self._file: IO[bytes] = io.BytesIO()
        self._stream: IO[bytes] = self._file

    def __enter__(self) -> ObjectWriter:
        self._file = os.fdopen(open_alone(self._aside, self.path), "wb")
        self._file.truncate(0)
        self._stream = self._file
        if self.path.suffix == ".gz":
            # Neither name nor time in the header, so that the bytes depend on the features alone.
            packed = gzip.GzipFile(filename="", mode="wb", compresslevel=_GZIP_LEVEL, fileobj=self._file, mtime=0)
            self._stream = io.BufferedWriter(packed, _BUFFER_BYTES)
        self._put(b'{"type":"FeatureCollection","features":[')
        return self

    def write(self, feature: bytes) -> None:
        """Append one feature, as :func:`encode_object` gives it."""
        self._put(b",\n" if self.count else b"\n")
        self._put(feature)
        self.count += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        finished = False
        try:
            if error is None:
                self._put(b"\n]}\n")
                if self._stream is not self._file:
                    self._stream.close()
                self._file.flush()
                # Before it is closed: until then no other process can write to it.
                os.replace(self._aside, self.path)
                finished = True
        finally:
            if not finished:
                self._aside.unlink(missing_ok=True)
                for each in (self._stream, self._file):
                    with suppress(OSError):  # the disk is full, say: the first error is the one to report
                        each.close()
        self._file.close()

    def _put(self, data: bytes) -> None:
        self._stream.write(data)
        self.json_bytes += len(data)


def rounded_for_qupath(polygons: NDArray[np.object_]) -> list[Polygon | MultiPolygon | None]:
    """Round coordinates to two decimals so that every result is still valid, with no part smaller than can be seen.

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
    """Return whether rounding moved any coordinate: a valid polygon that stays as it is needs no second look."""
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
    """Return a MultiPolygon of one part as the Polygon that it is."""
    if isinstance(geometry, MultiPolygon) and len(geometry.geoms) == 1:
        return geometry.geoms[0]
    assert geometry is None or isinstance(geometry, Polygon | MultiPolygon)
    return geometry


def _repaired(geometry: BaseGeometry) -> BaseGeometry | None:
    """Return the geometry on the grid of rounded coordinates, or None if nothing of it can be kept there."""
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
