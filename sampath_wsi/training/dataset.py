"""Prepared training data as torch sees them, with an order and an augmentation that resume where they stopped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from sampath_wsi.training.augment import AugmentSpec, augment
from sampath_wsi.training.data.prepared import PreparedData, Sample
from sampath_wsi.training.data.windows import cover

Key = tuple[int, int]
"""(epoch, index of the sample)."""
_Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]
# Decoding an image takes as long as a small model's step: data sets that fit are decoded once (in every worker).
_MOST_KEPT_BYTES = 2**29
_BYTES_A_PIXEL = 4


class TileDataset(Dataset[tuple[Tensor, Tensor]]):
    """Square tiles of the samples of a split, by (epoch, index).

    In training (with a ``spec``) each sample gives one tile, a random crop. Without one, windows of the tile's size
    that cover each sample are the tiles, in the order of :func:`sampath_wsi.training.data.windows.cover`.

    Parameters
    ----------
    data
        A prepared data set.
    samples
        Which of its samples, of any size; what is smaller than a tile is padded, unlabelled, with white.
    size_px
        Side of a tile.
    spec
        How to augment them, or None.
    seed
        Together with epoch and index it determines the augmentation, in whatever process it happens.
    """

    def __init__(
        self,
        data: PreparedData,
        samples: Sequence[Sample],
        size_px: int,
        spec: AugmentSpec | None = None,
        seed: int = 0,
    ) -> None:
        self._data, self._size_px, self._spec, self._seed = data, size_px, spec, seed
        pixels = sum(width * height for width, height in (data.sizes_px[sample.sample] for sample in samples))
        self._kept: dict[str, _Pair] | None = {} if pixels * _BYTES_A_PIXEL <= _MOST_KEPT_BYTES else None
        self._places = [
            (sample, corner)
            for sample in samples
            for corner in ([(0, 0)] if spec is not None else cover(*data.sizes_px[sample.sample], size_px))
        ]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, key: Key) -> tuple[Tensor, Tensor]:
        """Image ``(3, size, size)`` float32 in [0, 1] and labels ``(size, size)`` uint8 (0 = ignored, i + 1 = class i).

        Raises
        ------
        DataError
            If the sample cannot be read.
        """
        epoch, index = key
        sample, corner = self._places[index]
        pixels, labels = self._read(sample)
        if self._spec is not None:
            rng = np.random.default_rng((self._seed, epoch, index))
            return augment(_to_tensor(pixels), torch.from_numpy(labels.copy()), self._spec, self._size_px, rng)
        pixels, labels = window_of(pixels, labels, corner, self._size_px)
        return _to_tensor(pixels), torch.from_numpy(labels.copy())

    def _read(self, sample: Sample) -> _Pair:
        if self._kept is None:
            return self._data.read(sample)
        if sample.sample not in self._kept:
            self._kept[sample.sample] = self._data.read(sample)
        return self._kept[sample.sample]


def window_of(
    pixels: NDArray[np.uint8], labels: NDArray[np.uint8], corner_px: tuple[int, int], size_px: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image and labels of a window with its corner (x, y) in the image; beyond the image white, unlabelled."""
    part = np.s_[corner_px[1] : corner_px[1] + size_px, corner_px[0] : corner_px[0] + size_px]
    pixels, labels = pixels[part], labels[part]
    lacking = [(0, size_px - n) for n in labels.shape]
    return np.pad(pixels, [*lacking, (0, 0)], constant_values=255), np.pad(labels, lacking)


def _to_tensor(pixels: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255


class EpochSampler(Sampler[Key]):
    """Keys of a :class:`TileDataset`: every sample once an epoch, in an order that seed and epoch determine.

    Parameters
    ----------
    count
        Number of samples.
    seed
        Determines the order together with the epoch; None keeps the samples' own order.
    length
        Keys an epoch, if not all samples: fewer, or more (then samples come again).
    """

    def __init__(self, count: int, seed: int | None = None, length: int | None = None) -> None:
        self._count, self._seed, self._length = count, seed, length or count
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Begin this epoch with the next iteration; the trainer calls it."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Key]:
        epoch = self._epoch
        for start in range(0, self._length, self._count):
            order = np.arange(self._count)
            if self._seed is not None:
                order = np.random.default_rng((self._seed, epoch, start)).permutation(self._count)
            for index in order[: self._length - start]:
                yield epoch, int(index)
