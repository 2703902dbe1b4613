"""A segmentation store to be drawn: windows of its map, its classes, and where the map lies in the file's frame."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import shapely
from numpy.typing import NDArray

from sampath_wsi.classes import TissueClass
from sampath_wsi.errors import StoreError
from sampath_wsi.geometry import TileGrid
from sampath_wsi.options.stages import Frame
from sampath_wsi.qupath import DECIMALS
from sampath_wsi.stores.shards import Shards
from sampath_wsi.stores.store import open_input, read_array


@dataclass(frozen=True)
class Window:
    """A rectangle of whole map pixels: rows ``y`` to ``y + height``, columns ``x`` to ``x + width``."""

    y: int
    x: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns."""
        return slice(self.y, self.y + self.height), slice(self.x, self.x + self.width)


def windows(shape: tuple[int, int], side_map_px: int) -> list[Window]:
    """Cut a map into windows, row by row; those at the right and lower edge may be smaller."""
    height, width = shape
    return [
        Window(y, x, min(side_map_px, height - y), min(side_map_px, width - x))
        for y in range(0, height, side_map_px)
        for x in range(0, width, side_map_px)
    ]


class Readable(Protocol):
    """An array that is read by windows."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    def read(self, *window: slice) -> NDArray[Any]: ...


@dataclass(frozen=True)
class MapFrame:
    """Transformation from the map to the frame of the file: a point ``(x, y)`` lies at ``map * scale + offset``.

    ``far_corner_level0_px`` (x, y) is the end of the slide, which the last pixels of the map may reach a little past.
    """

    scale_level0_px_per_map_px: tuple[float, float]
    offset_level0_px: tuple[float, float]
    far_corner_level0_px: tuple[float, float] = (math.inf, math.inf)

    def to_level0_px(self, xy_map_px: NDArray[np.number]) -> NDArray[np.float64]:
        """Transform ``(..., 2)`` points of the map to the frame of the file."""
        xy: NDArray[np.float64] = np.multiply(xy_map_px, self.scale_level0_px_per_map_px) + self.offset_level0_px
        return xy

    def to_map_px(self, xy_level0_px: NDArray[np.float64]) -> NDArray[np.float64]:
        """Transform ``(..., 2)`` points of the frame of the file to map pixels."""
        return (xy_level0_px - self.offset_level0_px) / self.scale_level0_px_per_map_px


def rounded_box(corners_level0_px: NDArray[np.float64]) -> shapely.Polygon:
    """Return the rectangle between two corners ``(2, 2)``, rounded as all coordinates; neighbours round alike."""
    (left, top), (right, bottom) = np.round(corners_level0_px, DECIMALS).tolist()
    box: shapely.Polygon = shapely.box(left, top, right, bottom)
    return box


@dataclass(frozen=True)
class Source:
    """The input of the drawing: a class map, its probabilities, and the classes of its labels.

    Parameters
    ----------
    label_array
        ``(height, width)``: 0 = no class, ``i + 1`` = class ``i``.
    probability_array
        ``(class, height, width)``, uint8 (255 = 1) or float in [0, 1].
    fingerprint
        Of the slide: part of the objects' identifiers.
    mpp_map
        Micrometres in a map pixel.
    """

    label_array: Readable
    probability_array: Readable
    classes: tuple[TissueClass, ...]
    fingerprint: str
    mpp_map: float
    frame: MapFrame

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in map pixels."""
        height, width = self.label_array.shape
        return height, width

    @property
    def probability_unit(self) -> float:
        """The stored value of probability 1: 255 for bytes, 1 for floats."""
        return 255.0 if self.probability_array.dtype == np.uint8 else 1.0

    @property
    def makes_objects(self) -> NDArray[np.bool_]:
        """Whether regions become objects, by label value."""
        return np.array([False, *(not tissue_class.ignored for tissue_class in self.classes)])

    def labels(self, window: Window) -> NDArray[np.uint8]:
        """Read ``(height, width)`` label values."""
        return self.label_array.read(*window.slices).astype(np.uint8, copy=False)

    def probabilities(self, window: Window) -> NDArray[np.number]:
        """Read ``(class, height, width)``, in the unit of the store."""
        return self.probability_array.read(slice(0, len(self.classes)), *window.slices)


def open_source(segmentation_path: Path, frame: Frame) -> tuple[Source, TileGrid]:
    """Open a segmentation store to draw it: the source, and the grid of its tiles.

    Raises
    ------
    StoreError
        If there is no finished segmentation store, an array is missing, its record is damaged, or does not fit them.
    """
    path = Path(segmentation_path)
    group, provenance = open_input(path, "segmentation")
    labels, probability = Shards(read_array(group, "labels/classes/0")), Shards(read_array(group, "0"))
    classes, grid = provenance.classes, provenance.grid
    if probability.shape != (len(classes), *labels.shape):
        raise StoreError(
            f"{path}: probabilities {probability.shape} do not fit {len(classes)} classes on a map of {labels.shape}",
            "Stitch the slide again.",
        )
    crop_x, crop_y = provenance.slide.qupath_offset_level0_px if frame == "qupath" else (0, 0)
    scale_x, scale_y, offset_x, offset_y = grid.map_to_level0_px()
    left, top = offset_x - crop_x, offset_y - crop_y
    far_corner = left + grid.region_width_level0_px, top + grid.region_height_level0_px
    map_frame = MapFrame((scale_x, scale_y), (left, top), far_corner)
    return Source(labels, probability, classes, provenance.slide.fingerprint, grid.mpp_map, map_frame), grid
