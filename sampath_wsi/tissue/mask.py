"""The tissue mask of a slide, at low resolution.

The mask is soft: a value of 0.5 or more is tissue, and values between neighbouring pixels interpolate linearly, so that
the outline is smooth also when it is looked up at a much finer resolution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sampath_wsi.errors import SlideError
from sampath_wsi.geometry import Box, TileGrid
from sampath_wsi.progress import Progress
from sampath_wsi.slides import SlideReader
from sampath_wsi.tissue.brought import rasterize_rois, read_mask
from sampath_wsi.tissue.detection import TissueOptions, soft_mask

# 150 mm x 100 mm at 8 um/px, some GB of memory.
_MAX_MASK_PX = 1 << 28
# Much of some slides' tissue is pale (fat, mucin): the most coloured tells whether there is any colour.
_MOST_COLOURED = 95


@dataclass(frozen=True)
class TissueMask:
    """A soft mask over the region of a grid: ``values (y, x)`` in [0, 1], one value every ``px_level0_px`` (x, y).

    Parameters
    ----------
    found_share
        The share of ``values`` that was tissue before annotations limited it; None where everything was taken.
    brightness
        Median of the slide's brightest channel; None where the slide was not looked at.
    colour
        How far the channels lie apart in the most coloured tissue (95th percentile), in grey values; None without
        tissue, too.
    warnings
        What of the annotations was left out.
    """

    values: NDArray[np.float32]
    px_level0_px: tuple[float, float]
    found_share: float | None = None
    brightness: float | None = None
    colour: float | None = None
    warnings: tuple[str, ...] = ()

    def share(self, grid: TileGrid, tile: int) -> float:
        """Return the share of a tile that is tissue."""
        box = grid.tile_box_level0_px(tile)
        x0 = (box.x - grid.region_x_level0_px) / self.px_level0_px[0]
        y0 = (box.y - grid.region_y_level0_px) / self.px_level0_px[1]
        x1, y1 = x0 + box.width / self.px_level0_px[0], y0 + box.height / self.px_level0_px[1]
        part = self.values[math.floor(y0) : math.ceil(y1), math.floor(x0) : math.ceil(x1)]
        return float((part >= 0.5).mean()) if part.size else 0.0

    def tiles(self, grid: TileGrid, min_share: float) -> list[int]:
        """Return the tiles of which more than ``min_share`` is tissue."""
        return [tile for tile in grid.tiles if self.share(grid, tile) > min_share]


def find_tissue(
    reader: SlideReader,
    grid: TileGrid,
    options: TissueOptions,
    *,
    mask_path: Path | None = None,
    roi_path: Path | None = None,
    threads: int = 1,
    progress: Progress | None = None,
) -> TissueMask:
    """Find the tissue in the region of a grid, reading the slide in windows of bounded size, ``threads`` at once.

    Parameters
    ----------
    mask_path
        An image over the whole slide, of any size, to use in place of detection: not zero is tissue.
    roi_path
        QuPath annotations (GeoJSON, in QuPath's frame): only what lies in their areas counts as tissue
        (:mod:`sampath_wsi.qupath.drawing`).

    Raises
    ------
    SlideError
        If the slide cannot be read.
    AnnotationError
        If a mask or the annotations cannot be used.
    """
    info = reader.info
    px_x, px_y = px_level0_px = options.mpp / grid.mpp_x, options.mpp / grid.mpp_y
    rows = max(1, math.ceil(grid.region_height_level0_px / px_y))
    columns = max(1, math.ceil(grid.region_width_level0_px / px_x))
    if rows * columns > _MAX_MASK_PX:
        raise SlideError(
            f"{info.path}: a tissue mask at {options.mpp:g} um/px would have {columns} x {rows} px",
            "Check the slide's resolution, or set a coarser one for the mask (tile.tissue_mpp, --tissue-mpp).",
        )
    box = Box(grid.region_x_level0_px, grid.region_y_level0_px, columns * px_x, rows * px_y)
    brightness = colour = None
    if mask_path is not None:
        values = read_mask(mask_path, info.size_level0_px, box, (rows, columns))
    elif options.detect:
        picture = reader.overview(box, (columns, rows), threads=threads, progress=progress)
        values = soft_mask(picture, options)
        brightness = float(np.median(picture.max(axis=2)))
        apart = np.ptp(picture[values >= 0.5], axis=1)
        colour = float(np.percentile(apart, _MOST_COLOURED)) if apart.size else None
    else:
        values = np.ones((rows, columns), np.float32)
    found_share = float((values >= 0.5).mean()) if mask_path is not None or options.detect else None
    warnings: tuple[str, ...] = ()
    if roi_path is not None:
        share, warnings = rasterize_rois(roi_path, info, (box.x, box.y), px_level0_px, (rows, columns))
        values = values * share
    return TissueMask(values.astype(np.float32), px_level0_px, found_share, brightness, colour, warnings)
