"""Which rectangles of a slide are cut into tiles: where something was drawn. Pure arithmetic."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray


class Region(NamedTuple):
    """A rectangle in pixels of the wanted resolution."""

    x_px: int
    y_px: int
    width_px: int
    height_px: int


def plan_regions(bounds_px: NDArray[np.float64], size_px: tuple[int, int], tile_px: int) -> list[Region]:
    """Disjoint rectangles that hold everything drawn, each at least one tile wide and high where the slide is.

    Parameters
    ----------
    bounds_px
        ``(n, 4)``: left, top, right, bottom of what was drawn.
    size_px
        Width and height of the slide.

    Returns
    -------
    Row by row.
    """
    size = np.array(size_px)
    low, high = np.floor(bounds_px[:, :2]).astype(int), np.ceil(bounds_px[:, 2:]).astype(int)
    low, high = np.clip(low, 0, size - 1), np.clip(high, 1, size)
    # What is smaller than a tile lies in its middle, unless that reached beyond the slide.
    wanted = np.minimum(np.maximum(high - low, tile_px), size)
    low = np.clip(low - (wanted - (high - low)) // 2, 0, size - wanted)
    boxes = np.concatenate([low, low + wanted], axis=1).astype(float)
    count = 0
    while count != len(boxes):  # Boxes that met become their common bounds, which may meet others.
        count = len(boxes)
        boxes = shapely.bounds(shapely.get_parts(shapely.union_all(shapely.box(*boxes.T))))
    corners = boxes.round().astype(int).tolist()
    return sorted((Region(x0, y0, x1 - x0, y1 - y0) for x0, y0, x1, y1 in corners), key=lambda r: (r.y_px, r.x_px))
