"""A segmentation as OME-TIFFs to open beside the slide: the classes, the probability of one, and the uncertainty.

A picture has the map's pixels and begins where QuPath's picture of the slide begins, so that it lies over the slide
once it is scaled by the two pixel sizes. It covers all that QuPath shows: the slide, or its bounds where QuPath crops.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sampath_wsi.classes import class_index, colour_table
from sampath_wsi.errors import ConfigError
from sampath_wsi.geometry import TileGrid
from sampath_wsi.options import ImageOptions
from sampath_wsi.probability import PERCENT, SCALE, entropy_percent
from sampath_wsi.progress import Progress
from sampath_wsi.stores.pyramid import LABELS, Window, bright, mean_2x2, mode_2x2
from sampath_wsi.stores.shards import Shards
from sampath_wsi.stores.store import open_store, read_array
from sampath_wsi.tiff import Picture, Pixels, write_ome_tiff

CLASSES, PROBABILITY, ENTROPY = "classes.ome.tif", "probability.ome.tif", "entropy.ome.tif"
_WHITE = (255, 255, 255)
Part = tuple[slice, slice]
"""Rows and columns of the map."""


@dataclass(frozen=True)
class PictureFrame:
    """The picture's frame: the area that QuPath shows of a slide, in map pixels, and the map's place in it."""

    size_px: tuple[int, int]
    map_x_px: int
    map_y_px: int
    corner_level0_px: tuple[int, int]

    @classmethod
    def of(cls, grid: TileGrid, qupath_offset_level0_px: Sequence[int]) -> PictureFrame:
        """Return the frame; the map is at most half a pixel off where its corner lies on no whole pixel of it."""
        left, top = qupath_offset_level0_px
        width, height = grid.slide_width_level0_px, grid.slide_height_level0_px
        if left or top:  # then QuPath shows the slide's bounds, which are the tiled region
            width, height = grid.region_width_level0_px, grid.region_height_level0_px
        scale_x, scale_y = grid.level0_px_per_map_px
        x, y = round((grid.region_x_level0_px - left) / scale_x), round((grid.region_y_level0_px - top) / scale_y)
        map_width, map_height = grid.map_size_map_px
        # A millionth of a pixel is rounding noise.
        size = (
            max(math.ceil(width / scale_x - 1e-6), x + map_width),
            max(math.ceil(height / scale_y - 1e-6), y + map_height),
        )
        return cls(size, x, y, (left, top))


def plan_images(segmentation_path: Path, options: ImageOptions) -> tuple[tuple[str, ...], PictureFrame]:
    """Return the names of the files that :func:`write_images` would write, and their contents.

    Raises
    ------
    StoreError, ConfigError
        As it does.
    """
    made_by = open_store(segmentation_path, "segmentation")[1]
    wanted = {CLASSES: options.classes, PROBABILITY: options.probability, ENTROPY: options.entropy}
    names = tuple(name for name, asked_for in wanted.items() if asked_for)
    if not names:
        raise ConfigError("no picture is asked for", "Give at least one of --classes, --probability CLASS, --entropy.")
    if options.probability:
        class_index(made_by.classes, options.probability)
    return names, PictureFrame.of(made_by.grid, made_by.slide.qupath_offset_level0_px)


def write_images(
    segmentation_path: Path,
    out_dir: Path,
    options: ImageOptions,
    *,
    threads: int = 2,
    progress: Progress | None = None,
) -> list[Path]:
    """Write the pictures that the options name into a folder, each whole or not at all.

    Returns
    -------
    The files.

    Raises
    ------
    StoreError
        If the segmentation cannot be read.
    ConfigError
        If the model does not know the class, or nothing is asked for.
    """
    names, frame = plan_images(segmentation_path, options)
    group, made_by = open_store(segmentation_path, "segmentation")
    classes, grid = made_by.classes, made_by.grid
    labels = Shards(read_array(group, f"{LABELS}/0"))
    probability = Shards(read_array(group, "0"))
    corner_um = (frame.corner_level0_px[0] * grid.mpp_x, frame.corner_level0_px[1] * grid.mpp_y)

    def percent(of: Callable[[NDArray[np.number]], Pixels], channels: slice, part: Part) -> Pixels:
        """Return a function of the probabilities of some classes, and 0 where the map has no class."""
        labelled: NDArray[np.bool_] = labels.read(*part) > 0
        found = labelled.view(np.uint8)
        if labelled.any():
            found *= of(probability.read(channels, *part))
        return found

    def write(
        name: str,
        value: Callable[[Part], Pixels],
        channel: str,
        color: tuple[int, int, int] = _WHITE,
        palette: NDArray[np.uint8] | None = None,
        halve: Callable[[Pixels], Pixels] = _mean,
    ) -> None:
        # The same name for the same content: a file that is made again is the same bytes.
        content = uuid.uuid5(uuid.NAMESPACE_URL, f"{made_by.identity}/{name}/{channel}/{palette is None}")
        title = f"{made_by.slide.id}: {channel}"
        picture = Picture(title, frame.size_px, grid.mpp_map, corner_um, channel, color, str(content), palette)
        compute = partial(_in_frame, frame, labels.shape, value)
        write_ome_tiff(out_dir / name, picture, compute, halve, threads=threads, progress=progress)

    if options.classes:
        palette = colour_table(classes) if options.style == "colors" else None
        write(CLASSES, lambda part: labels.read(*part), "Class", palette=palette, halve=mode_2x2)
    if options.probability:
        index = class_index(classes, options.probability)
        shown = classes[index]
        value = partial(percent, _in_percent, slice(index, index + 1))
        write(PROBABILITY, value, f"{shown.name} (%)", bright(shown.color))
    if options.entropy:
        write(ENTROPY, partial(percent, entropy_percent, slice(0, len(classes))), "Entropy (%)")
    return [out_dir / name for name in names]


def _in_frame(
    frame: PictureFrame, map_shape: tuple[int, ...], value: Callable[[Part], Pixels], window: Window
) -> Pixels:
    """Return a window of the frame: ``value`` of the part of the map in it, and 0 around."""
    y0, x0, y1, x1 = window
    found = np.zeros((y1 - y0, x1 - x0), np.uint8)
    top, left = frame.map_y_px, frame.map_x_px
    rows = slice(max(y0 - top, 0), min(y1 - top, map_shape[0]))
    columns = slice(max(x0 - left, 0), min(x1 - left, map_shape[1]))
    if rows.start < rows.stop and columns.start < columns.stop:
        inside = found[rows.start + top - y0 : rows.stop + top - y0, columns.start + left - x0 :]
        inside[:, : columns.stop - columns.start] = value((rows, columns))
    return found


def _in_percent(probability: NDArray[np.generic]) -> Pixels:
    """Return the probability of a single class in percent: from ``(1, y, x)`` to ``(y, x)``."""
    one = SCALE if probability.dtype == np.uint8 else 1
    percent: Pixels = np.rint(probability[0].astype(np.float32) * np.float32(PERCENT / one)).astype(np.uint8)
    return percent


def _mean(plane: Pixels) -> Pixels:
    half: Pixels = mean_2x2(plane[None])[0]
    return half
