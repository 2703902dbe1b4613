"""Objects written as one GeoJSON FeatureCollection, a feature at a time."""

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

import shapely
from shapely import MultiPolygon, Polygon

from sampath_wsi.classes import TissueClass
from sampath_wsi.errors import ConfigError
from sampath_wsi.files import open_alone

ObjectType = Literal["annotation", "detection"]
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
    """One GeoJSON feature, strict JSON in ASCII.

    Annotations are locked, as those of QuPath's own pixel classifier are, so that a stray click does not move them.

    Parameters
    ----------
    geometry
        As :func:`sampath_wsi.qupath.rounded_for_qupath` returns it, in level-0 pixels of the frame that QuPath shows.
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
        try:
            if error is None:
                self._put(b"\n]}\n")
                if self._stream is not self._file:
                    self._stream.close()
                self._file.flush()
                # Before it is closed: until then no other process can write to it.
                os.replace(self._aside, self.path)
        except BaseException:
            self._give_up()
            raise
        if error is not None:
            self._give_up()
        self._file.close()

    def _give_up(self) -> None:
        self._aside.unlink(missing_ok=True)
        for each in (self._stream, self._file):
            with suppress(OSError):  # the disk is full, say: the first error is the one to report
                each.close()

    def _put(self, data: bytes) -> None:
        self._stream.write(data)
        self.json_bytes += len(data)
