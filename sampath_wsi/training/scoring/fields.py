"""Fields: the regions that the samples of prepared data were cut from, put together again.

A pixel of a field is one pixel, however many tiles show it. Between tiles a field is white and unlabelled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sampath_wsi.errors import DataError
from sampath_wsi.training.data.prepared import PreparedData, Sample

_WHITE = 255


@dataclass(frozen=True)
class Field:
    """A region, and the samples that were cut from it."""

    name: str
    group: str
    split: str
    samples: tuple[Sample, ...]


def fields_of(samples: Sequence[Sample]) -> tuple[Field, ...]:
    """The fields of samples, in the order in which they first occur.

    Raises
    ------
    DataError
        If samples of one field have different groups.
    """
    by_name: dict[str, list[Sample]] = {}
    for sample in samples:
        by_name.setdefault(sample.field, []).append(sample)
    for name, members in by_name.items():
        if other := next((s for s in members if s.group != members[0].group), None):
            raise DataError(
                f"field {name}: sample {members[0].sample} belongs to the group {members[0].group} "
                f"and {other.sample} to {other.group}",
                "Samples of one field come from one patient or slide: correct samples.csv.",
            )
    return tuple(Field(name, members[0].group, members[0].split, tuple(members)) for name, members in by_name.items())


def read_field(data: PreparedData, field: Field) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image ``(H, W, 3)`` and labels ``(H, W)`` of a field.

    Raises
    ------
    DataError
        If a sample cannot be read, or two of them label the same pixel differently.
    """
    width, height, corners = _layout(data, field)
    image, labels = np.full((height, width, 3), _WHITE, np.uint8), np.zeros((height, width), np.uint8)
    for sample, (x, y) in zip(field.samples, corners, strict=True):
        tile, tile_labels = data.read(sample)
        image[y : y + len(tile), x : x + tile.shape[1]] = tile
        _paste(labels, tile_labels, (x, y), field, sample)
    return image, labels


def read_field_instances(data: PreparedData, field: Field) -> NDArray[np.int64]:
    """Map of instances ``(H, W)`` of a field; in all its samples a number means the same instance.

    Raises
    ------
    DataError
        If a sample has no map of instances, or two of them give the same pixel different numbers.
    """
    width, height, corners = _layout(data, field)
    instances = np.zeros((height, width), np.int64)
    for sample, corner in zip(field.samples, corners, strict=True):
        _paste(instances, data.read_instances(sample), corner, field, sample)
    return instances


def _layout(data: PreparedData, field: Field) -> tuple[int, int, list[tuple[int, int]]]:
    """Width and height of the smallest rectangle around the samples, and their corners in it."""
    left, top = min(s.x_px for s in field.samples), min(s.y_px for s in field.samples)
    corners = [(s.x_px - left, s.y_px - top) for s in field.samples]
    sizes = [data.sizes_px[s.sample] for s in field.samples]
    ends = [(x + width, y + height) for (x, y), (width, height) in zip(corners, sizes, strict=True)]
    return max(x for x, _ in ends), max(y for _, y in ends), corners


def _paste(canvas: NDArray[Any], tile: NDArray[Any], corner: tuple[int, int], field: Field, sample: Sample) -> None:
    part = canvas[corner[1] : corner[1] + tile.shape[0], corner[0] : corner[0] + tile.shape[1]]
    if ((part != tile) & (part > 0) & (tile > 0)).any():
        raise DataError(
            f"field {field.name}: sample {sample.sample} disagrees with another one where they overlap",
            "Check x_px and y_px in samples.csv, or prepare the data again.",
        )
    np.maximum(part, tile, out=part)
