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
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sampath_wsi.classes import TissueClass, class_index, colour_table
from sampath_wsi.errors import ConfigError
from sampath_wsi.geometry import TileGrid
from sampath_wsi.probability import PERCENT, SCALE, entropy_percent
from sampath_wsi.progress import Progress
from sampath_wsi.stages.images.tiff import Picture, Plane, write_ome_tiff
from sampath_wsi.stores import ome
from sampath_wsi.stores.pyramid import Window, mean_2x2, mode_2x2
from sampath_wsi.stores.shards import Shards
from sampath_wsi.stores.store import Provenance, open_store, read_array

CLASSES, PROBABILITY, ENTROPY = "classes.ome.tif", "probability.ome.tif", "entropy.ome.tif"
_WHITE = (255, 255, 255)


@dataclass(frozen=True)
class ImageOptions:
    """Which pictures are written.

    Parameters
    ----------
    classes
        The class map.
    probability
        The name of the class whose probability is written; None for none.
    entropy
        How uncertain the model is (see :func:`sampath_wsi.probability.entropy_percent`).
    style
        Of the class map: in the classes' ``colors`` (RGB), or as ``labels`` (0 is no class, i + 1 is class i).
    """

    classes: bool = False
    probability: str | None = None
    entropy: bool = False
    style: Literal["colors", "labels"] = "colors"


@dataclass(frozen=True)
class PictureFrame:
    """A picture of what QuPath shows of a slide, with the map's pixels, and where the map lies in it."""

    size_px: tuple[int, int]
    map_x_px: int
    map_y_px: int
    corner_level0_px: tuple[int, int]

    @classmethod
    def of(cls, grid: TileGrid, qupath_offset_level0_px: Sequence[int]) -> PictureFrame:
        """The frame; the map is at most half a pixel off where its corner lies on no whole pixel of it."""
        left, top = qupath_offset_level0_px
        width, height = grid.slide_width_level0_px, grid.slide_height_level0_px
        if left or top:  # then QuPath shows the slide's bounds, which are what is tiled
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
    """The names of the files that :func:`write_images` would write, and what they show.

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
        class_index(_classes(made_by), options.probability)
    return names, PictureFrame.of(made_by.grid, made_by.slide["qupath_offset_level0_px"])


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
    frame = plan_images(segmentation_path, options)[1]
    group, made_by = open_store(segmentation_path, "segmentation")
    classes = _classes(made_by)
    index = class_index(classes, options.probability) if options.probability else 0
    labels = Shards(read_array(group, f"{ome.LABELS}/0"))
    probability = Shards(read_array(group, "0"))
    written = []

    def write(name: str, value: Callable[[Any], Plane], halve: Callable[[Plane], Plane], **look: Any) -> None:
        picture = _picture(name, made_by, frame, **look)
        compute = partial(_in_frame, frame, labels.shape, value)
        write_ome_tiff(out_dir / name, picture, compute, halve, threads=threads, progress=progress)
        written.append(out_dir / name)

    if options.classes:
        palette = colour_table(classes) if options.style == "colors" else None
        write(CLASSES, lambda part: labels.read(*part), mode_2x2, channel="Class", palette=palette)
    if options.probability:
        value = partial(_where_labelled, _percent, probability, slice(index, index + 1), labels)
        name, colour = f"{classes[index].name} (%)", ome.bright(classes[index].color)
        write(PROBABILITY, value, _mean, channel=name, color=colour)
    if options.entropy:
        value = partial(_where_labelled, entropy_percent, probability, slice(0, len(classes)), labels)
        write(ENTROPY, value, _mean, channel="Entropy (%)")
    return written


def _classes(made_by: Provenance) -> tuple[TissueClass, ...]:
    return tuple(TissueClass.model_validate(entry) for entry in made_by.options["classes"])


def _in_frame(
    frame: PictureFrame, shape: tuple[int, ...], value: Callable[[tuple[slice, slice]], Plane], window: Window
) -> Plane:
    """A window of the frame: what ``value`` makes of the part of the map in it, and 0 around."""
    found = np.zeros((window[2] - window[0], window[3] - window[1]), np.uint8)
    inside, part = [], []
    for begin, end, offset, length in zip(window[:2], window[2:], (frame.map_y_px, frame.map_x_px), shape, strict=True):
        first, last = max(begin - offset, 0), min(end - offset, length)
        if first >= last:
            return found
        part.append(slice(first, last))
        inside.append(slice(first + offset - begin, last + offset - begin))
    found[tuple(inside)] = value((part[0], part[1]))
    return found


def _where_labelled(
    percent: Callable[[NDArray[Any]], Plane],
    probability: Shards,
    classes: slice,
    labels: Shards,
    part: tuple[slice, slice],
) -> Plane:
    """What ``percent`` makes of the probabilities of some classes; 0 where there is no class."""
    labelled: NDArray[np.bool_] = labels.read(*part) > 0
    found = labelled.view(np.uint8)
    if labelled.any():
        found *= percent(probability.read(classes, *part))
    return found


def _percent(probability: NDArray[Any]) -> Plane:
    """The probability of a single class in percent: from ``(1, y, x)`` to ``(y, x)``."""
    one = SCALE if probability.dtype == np.uint8 else 1
    percent: Plane = np.rint(probability[0].astype(np.float32) * np.float32(PERCENT / one)).astype(np.uint8)
    return percent


def _mean(plane: Plane) -> Plane:
    half: Plane = mean_2x2(plane[None])[0]
    return half


def _picture(
    file: str,
    made_by: Provenance,
    frame: PictureFrame,
    *,
    channel: str,
    color: tuple[int, int, int] = _WHITE,
    palette: NDArray[np.uint8] | None = None,
) -> Picture:
    grid, (x, y) = made_by.grid, frame.corner_level0_px
    return Picture(
        name=f"{made_by.slide['id']}: {channel}",
        size_px=frame.size_px,
        um_per_px=grid.mpp_map,
        corner_um=(x * grid.mpp_x, y * grid.mpp_y),
        channel=channel,
        color=color,
        palette=palette,
        # The same of the same: a file that is made again is the same bytes.
        uuid=str(uuid.uuid5(uuid.NAMESPACE_URL, f"{made_by.identity}/{file}/{channel}/{palette is None}")),
    )
