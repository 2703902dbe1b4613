"""The label of every pixel of a field, from a model that sees windows of it.

Windows are spread evenly over the field (``training.data.windows``) on the lattice of the model's map, so
that their maps lie pixel on pixel; they are blended as tiles of a slide are. Beyond the field there is white.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sampath_wsi.errors import ConfigError
from sampath_wsi.probability import argmax_label
from sampath_wsi.stages.stitch.blend import bilinear, blending_ramp
from sampath_wsi.training.data.windows import spread

if TYPE_CHECKING:
    from sampath_wsi.stages.infer.stage import PredictorLike

Symmetry = tuple[int, bool]
"""Quarter turns, and whether the turned picture is mirrored."""

SYMMETRIES: dict[int, tuple[Symmetry, ...]] = {
    1: ((0, False),),
    4: tuple((turns, mirror) for turns in (0, 2) for mirror in (False, True)),
    8: tuple((turns, mirror) for turns in range(4) for mirror in (False, True)),
}
"""By number of flips: none; the picture, both mirror images and the half turn; all eight of a square."""

_WHITE = 255
_ROWS_AT_ONCE = 256


@dataclass
class FieldPredictor:
    """Predicts fields with a model.

    Parameters
    ----------
    predict
        The model: tiles ``(tile, y, x, 3)`` uint8 to probabilities ``(tile, class, y, x)``.
    n_classes
        How many classes.
    tile_px
        Side of its tiles.
    output_stride
        Pixels of a tile in one pixel of its map.
    batch
        Tiles at once.
    flips
        How many symmetric versions of each window are averaged: 1, 4 or 8.

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
    flips: int = 1
    model_seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.flips not in SYMMETRIES:
            raise ConfigError(f"flips: {self.flips}", f"Use one of {', '.join(map(str, SYMMETRIES))}.")

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Labels ``(H, W)`` of an image ``(H, W, 3)``: the best class of each pixel, i + 1 = class i."""
        return upsampled_labels(self.map_of(image), image.shape[:2], self.output_stride)

    def map_of(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Blended probabilities ``(class, y, x)`` at the map's resolution, 0 to 255; the map ends with the image."""
        size = self.tile_px // self.output_stride
        height, width = (-(-length // self.output_stride) for length in image.shape[:2])
        rows, columns = spread(height, size), spread(width, size)
        weight = np.outer(_ramp(rows, size), _ramp(columns, size))
        total = np.zeros((self.n_classes, rows[-1] + size, columns[-1] + size), np.float32)
        weights = np.zeros(total.shape[1:], np.float32)
        corners = [(y, x) for y in rows for x in columns]
        for first in range(0, len(corners), self.batch):
            part = corners[first : first + self.batch]
            probabilities = self._mean_over_symmetries(np.stack([self._window(image, *corner) for corner in part]))
            for (y, x), probability in zip(part, probabilities, strict=True):
                total[:, y : y + size, x : x + size] += probability * weight
                weights[y : y + size, x : x + size] += weight
        return np.divide(total, weights, out=total)[:, :height, :width]

    def _window(self, image: NDArray[np.uint8], y_map_px: int, x_map_px: int) -> NDArray[np.uint8]:
        top, left = y_map_px * self.output_stride, x_map_px * self.output_stride
        part = image[top : top + self.tile_px, left : left + self.tile_px]
        lacking = [(0, self.tile_px - length) for length in part.shape[:2]]
        return np.pad(part, [*lacking, (0, 0)], constant_values=_WHITE)

    def _mean_over_symmetries(self, windows: NDArray[np.uint8]) -> NDArray[np.float32]:
        versions = [self._predict_version(windows, *symmetry) for symmetry in SYMMETRIES[self.flips]]
        mean: NDArray[np.float32] = np.mean(versions, axis=0, dtype=np.float32)
        return mean

    def _predict_version(self, windows: NDArray[np.uint8], turns: int, mirror: bool) -> NDArray[np.uint8]:
        """Probabilities of windows that are shown to the model turned and mirrored, turned back."""
        shown = np.rot90(windows, turns, (1, 2))
        shown = np.ascontiguousarray(shown[:, :, ::-1] if mirror else shown)
        begun = time.perf_counter()
        probability, _ = self.predict(shown)
        self.model_seconds += time.perf_counter() - begun
        return np.rot90(probability[..., ::-1] if mirror else probability, -turns, (2, 3))


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
    """Weights of a window along an axis: they rise over the widest overlap of two neighbours."""
    steps = np.diff(starts)
    return blending_ramp(size, size - int(steps.min()) if len(steps) else 0)
