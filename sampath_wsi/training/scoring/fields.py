"""Fields: the regions that the samples of prepared data were cut from, put together again and predicted as a whole.

A pixel of a field is one pixel, however many samples show it. Between samples a field is white and unlabelled. A model
sees windows, spread evenly over the field (:mod:`sampath_wsi.training.data.windows`) on the lattice of its map, so that
their maps lie pixel on pixel; they are blended as tiles of a slide are. Beyond the field there is white.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sampath_wsi.errors import ConfigError, DataError
from sampath_wsi.probability import argmax_label
from sampath_wsi.stages.stitch.blend import bilinear, blending_ramp
from sampath_wsi.training.data.prepared import PreparedData, Sample
from sampath_wsi.training.data.windows import spread

if TYPE_CHECKING:
    from sampath_wsi.stages.infer.stage import PredictorLike

SYMMETRIES: dict[int, tuple[tuple[int, bool], ...]] = {
    1: ((0, False),),
    4: tuple((turns, mirror) for turns in (0, 2) for mirror in (False, True)),
    8: tuple((turns, mirror) for turns in range(4) for mirror in (False, True)),
}
"""Quarter turns, and whether the turned image is mirrored, by the number of versions that test-time augmentation
averages: none; the image, both mirror images and the half turn; all eight of a square."""

_WHITE = 255
_ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class Field:
    """A region, and the samples that were cut from it."""

    name: str
    group: str
    split: str
    samples: tuple[Sample, ...]


def fields_of(samples: Sequence[Sample]) -> tuple[Field, ...]:
    """Return the fields of samples, in the order in which they first occur.

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
    """Read the image ``(H, W, 3)`` and the labels ``(H, W)`` of a field.

    Raises
    ------
    DataError
        If a sample cannot be read, or two of them label the same pixel differently.
    """
    shape, windows = _layout(data, field)
    image, labels = np.full((*shape, 3), _WHITE, np.uint8), np.zeros(shape, np.uint8)
    for sample, window in zip(field.samples, windows, strict=True):
        image[window], part = data.read(sample)
        _paste(labels[window], part, field, sample)
    return image, labels


def read_field_instances(data: PreparedData, field: Field) -> NDArray[np.int64]:
    """Read the map of instances ``(H, W)`` of a field; in all its samples a number means the same instance.

    Raises
    ------
    DataError
        If a sample has no map of instances, or two of them give the same pixel different numbers.
    """
    shape, windows = _layout(data, field)
    instances = np.zeros(shape, np.int64)
    for sample, window in zip(field.samples, windows, strict=True):
        _paste(instances[window], data.read_instances(sample), field, sample)
    return instances


def _layout(data: PreparedData, field: Field) -> tuple[tuple[int, int], list[tuple[slice, slice]]]:
    """Return height and width of the smallest rectangle around the samples, and their rows and columns in it."""
    left, top = min(s.x_px for s in field.samples), min(s.y_px for s in field.samples)
    windows = []
    for sample in field.samples:
        (width, height), x, y = data.sizes_px[sample.sample], sample.x_px - left, sample.y_px - top
        windows.append((slice(y, y + height), slice(x, x + width)))
    return (max(rows.stop for rows, _ in windows), max(columns.stop for _, columns in windows)), windows


def _paste(window: NDArray[np.integer], part: NDArray[np.integer], field: Field, sample: Sample) -> None:
    """Write the labels of a sample into its window of the field, where nothing else is."""
    if ((window != part) & (window > 0) & (part > 0)).any():
        raise DataError(
            f"field {field.name}: sample {sample.sample} disagrees with another one where they overlap",
            "Check x_px and y_px in samples.csv, or prepare the data again.",
        )
    np.maximum(window, part, out=window)


@dataclass
class FieldPredictor:
    """Predicts fields with a model.

    Parameters
    ----------
    predict
        The model: windows ``(window, y, x, 3)`` uint8 to probabilities ``(window, class, y, x)``.
    n_classes
        How many classes.
    tile_px
        Side of the windows.
    output_stride
        Pixels of a window in one pixel of its map.
    batch
        Windows at once.
    tta
        Test-time augmentation: how many symmetric versions of each window are averaged, 1, 4 or 8.

    Attributes
    ----------
    model_seconds
        What the model took in all.
    """

    predict: PredictorLike
    n_classes: int
    tile_px: int
    output_stride: int
    batch: int = 1
    tta: int = 1
    model_seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.tta not in SYMMETRIES:
            raise ConfigError(f"tta: {self.tta}", f"Use one of {', '.join(map(str, SYMMETRIES))}.")

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return labels ``(H, W)`` of an image ``(H, W, 3)``: the best class of each pixel, i + 1 = class i."""
        return upsampled_labels(self.map_of(image), image.shape[:2], self.output_stride)

    def map_of(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return blended probabilities ``(class, y, x)``, 0 to 255, in pixels of the map; they end with the image."""
        size = self.tile_px // self.output_stride
        height, width = (-(-length // self.output_stride) for length in image.shape[:2])
        rows, columns = spread(height, size), spread(width, size)
        weight = np.outer(_ramp(rows, size), _ramp(columns, size))
        total = np.zeros((self.n_classes, rows[-1] + size, columns[-1] + size), np.float32)
        weights = np.zeros(total.shape[1:], np.float32)
        corners = [(y, x) for y in rows for x in columns]
        for first in range(0, len(corners), self.batch):
            part = corners[first : first + self.batch]
            probabilities = self._predict(np.stack([self._window(image, *corner) for corner in part]))
            for (y, x), probability in zip(part, probabilities, strict=True):
                total[:, y : y + size, x : x + size] += probability * weight
                weights[y : y + size, x : x + size] += weight
        return np.divide(total, weights, out=total)[:, :height, :width]

    def _window(self, image: NDArray[np.uint8], y_map_px: int, x_map_px: int) -> NDArray[np.uint8]:
        top, left = y_map_px * self.output_stride, x_map_px * self.output_stride
        part = image[top : top + self.tile_px, left : left + self.tile_px]
        lacking = [(0, self.tile_px - length) for length in part.shape[:2]]
        return np.pad(part, [*lacking, (0, 0)], constant_values=_WHITE)

    def _predict(self, windows: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Average the probabilities of windows that the model sees turned and mirrored, turned back."""
        versions = []
        for turns, mirror in SYMMETRIES[self.tta]:
            shown = np.rot90(windows, turns, (1, 2))
            shown = np.ascontiguousarray(shown[:, :, ::-1] if mirror else shown)
            begun = time.perf_counter()
            probability, _ = self.predict(shown)
            self.model_seconds += time.perf_counter() - begun
            versions.append(np.rot90(probability[..., ::-1] if mirror else probability, -turns, (2, 3)))
        return np.asarray(np.mean(versions, axis=0, dtype=np.float32))


def upsampled_labels(probability: NDArray[np.float32], shape: tuple[int, ...], output_stride: int) -> NDArray[np.uint8]:
    """Resize a map ``(class, y, x)`` bilinearly, corners not aligned, and take the best class of each pixel.

    Returns
    -------
    ``shape`` uint8 in 1 ... n_classes, computed a few rows at a time; of equal classes the first.
    """
    height, width = shape
    rows, columns = ((np.arange(length) + 0.5) / output_stride - 0.5 for length in (height, width))
    labels = np.empty((height, width), np.uint8)
    for first in range(0, height, _ROWS_AT_ONCE):
        part = slice(first, first + _ROWS_AT_ONCE)
        labels[part] = argmax_label(np.stack([bilinear(one, rows[part], columns) for one in probability]))
    return labels


def _ramp(starts: list[int], size: int) -> NDArray[np.float32]:
    """Return weights of a window along an axis: they rise over the widest overlap of two neighbours."""
    steps = np.diff(starts)
    return blending_ramp(size, size - int(steps.min()) if len(steps) else 0)
