"""Prepared training data as torch sees them, with an order and an augmentation that resume where they stopped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from sampath_wsi.errors import DataError
from sampath_wsi.train.augment import AugmentSpec, augment
from sampath_wsi.train.prepared import PreparedData, Sample

Key = tuple[int, int]
"""(epoch, index of the sample)."""


class TileDataset(Dataset[tuple[Tensor, Tensor]]):
    """Samples of a split, by (epoch, index).

    Parameters
    ----------
    data
        A prepared data set.
    samples
        Which of its samples.
    spec
        How to augment them, or None.
    seed
        Together with epoch and index it determines the augmentation, in whatever process it happens.
    size_px
        Side that images must have, or None for any (then the batch size must be 1).
    """

    def __init__(
        self,
        data: PreparedData,
        samples: Sequence[Sample],
        spec: AugmentSpec | None = None,
        seed: int = 0,
        size_px: int | None = None,
    ) -> None:
        self._data, self._samples, self._spec, self._seed, self._size_px = data, tuple(samples), spec, seed, size_px

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, key: Key) -> tuple[Tensor, Tensor]:
        """Image ``(3, H, W)`` float32 in [0, 1] and labels ``(H, W)`` uint8 (0 = ignored, i + 1 = class i).

        Raises
        ------
        DataError
            If the sample cannot be read or has another size than wanted.
        """
        epoch, index = key
        sample = self._samples[index]
        pixels, labels = self._data.read(sample)
        if self._size_px is not None and labels.shape != (self._size_px, self._size_px):
            raise DataError(
                f"sample {sample.sample} is {labels.shape[1]} x {labels.shape[0]} px, "
                f"the recipe's tiles have {self._size_px} px",
                "Prepare the data at the recipe's tile size.",
            )
        image = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255
        label = torch.from_numpy(labels.copy())
        if self._spec is not None:
            image, label = augment(image, label, self._spec, np.random.default_rng((self._seed, epoch, index)))
        return image, label


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
