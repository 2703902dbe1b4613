"""The tiles of a training run: their augmentation, and their order and share for each process, resumable anywhere."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from sampath_wsi.errors import ConfigError, DataError, SampathError
from sampath_wsi.machine.facts import cores
from sampath_wsi.training.augment import AugmentSpec, augment
from sampath_wsi.training.data.prepared import PreparedData, Sample
from sampath_wsi.training.data.windows import cover
from sampath_wsi.training.recipe import Recipe

Key = tuple[int, int]
"""(epoch, index of the tile)."""
Batch = tuple[Tensor, Tensor]
"""Images ``(B, 3, S, S)`` float32 in [0, 1] and labels ``(B, S, S)`` uint8 (0 = ignored, i + 1 = class i)."""
_Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]
# Decoding an image takes as long as a small model's step: data sets that fit are decoded once (in every worker).
_MOST_KEPT_BYTES = 2**29
_BYTES_A_PIXEL = 4
_MOST_WORKERS = 8


class TileDataset(Dataset[tuple[Tensor, Tensor]]):
    """Square tiles of the samples of a split, by (epoch, index).

    In training (with a ``spec``) each sample gives one tile, a random crop. Without one, windows of the tile's size
    that cover each sample are the tiles, in the order of :func:`sampath_wsi.training.data.windows.cover`.

    Parameters
    ----------
    data
        A prepared data set.
    samples
        Which of its samples, of any size; smaller ones are padded with white, unlabelled.
    size_px
        Side of a tile.
    spec
        How to augment them, or None.
    seed
        Together with epoch and index it determines the augmentation, in any process.
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
        """Read image ``(3, S, S)`` and labels ``(S, S)`` of a tile, as in a :data:`Batch`.

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
        pixels, labels = _window(pixels, labels, corner, self._size_px)
        return _to_tensor(pixels), torch.from_numpy(labels.copy())

    def __getitems__(self, keys: Sequence[Key]) -> Batch | SampathError:
        """Read a batch, or return the error of a tile: raised in a worker it would come out as a traceback."""
        try:
            images, labels = default_collate([self[key] for key in keys])
        except SampathError as error:
            return error
        return images, labels

    def _read(self, sample: Sample) -> _Pair:
        if self._kept is None:
            return self._data.read(sample)
        if sample.sample not in self._kept:
            self._kept[sample.sample] = self._data.read(sample)
        return self._kept[sample.sample]


def _window(
    pixels: NDArray[np.uint8], labels: NDArray[np.uint8], corner_px: tuple[int, int], size_px: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return image and labels of a window with its corner (x, y) in the image; beyond the image white, unlabelled."""
    part = np.s_[corner_px[1] : corner_px[1] + size_px, corner_px[0] : corner_px[0] + size_px]
    pixels, labels = pixels[part], labels[part]
    lacking = [(0, size_px - n) for n in labels.shape]
    return np.pad(pixels, [*lacking, (0, 0)], constant_values=255), np.pad(labels, lacking)


def _to_tensor(pixels: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255


def epoch_keys(count: int, seed: int, epoch: int, length: int | None = None) -> list[Key]:
    """Return the keys of an epoch, in an order that seed and epoch determine: each of ``count`` tiles once.

    ``length`` asks for fewer keys, or for more: then tiles come again.
    """
    length = length or count
    orders = [np.random.default_rng((seed, epoch, start)).permutation(count) for start in range(0, length, count)]
    return [(epoch, int(index)) for index in np.concatenate(orders)[:length]]


def share_of(keys: Sequence[Key], batch_size: int, rank: int, world: int) -> list[list[Key]]:
    """Return the part of every whole batch that one process takes; an incomplete batch at the end is dropped.

    All processes together take the batch that one process would take alone, so the result of a run does not depend on
    the number of processes, but for rounding. ``batch_size`` is a multiple of ``world``.
    """
    share = batch_size // world
    firsts = range(rank * share, len(keys) // batch_size * batch_size, batch_size)
    return [list(keys[first : first + share]) for first in firsts]


class TrainingTiles:
    """The tiles that one of several processes reads for training and validation.

    Parameters
    ----------
    rank, world
        Number of the process, and how many there are.
    workers
        Processes that read the tiles; None: as many as cores are left beside a GPU.

    Attributes
    ----------
    batches, val_tiles
        Of an epoch, and of its validation, in all processes.

    Raises
    ------
    ConfigError
        If the batches cannot be divided among the processes.
    DataError
        If a split is empty, or too small for a batch.
    """

    def __init__(
        self, recipe: Recipe, data: PreparedData, rank: int = 0, world: int = 1, workers: int | None = 0
    ) -> None:
        self._recipe, self._rank, self._world = recipe, rank, world
        self._workers = max(1, min(_MOST_WORKERS, cores() // world - 1)) if workers is None else workers
        self._train = TileDataset(data, data.split(recipe.train_split), recipe.tile_px, recipe.augment, recipe.seed)
        self._val = TileDataset(data, data.split(recipe.val_split), recipe.tile_px)
        length = recipe.tiles_per_epoch or len(self._train)
        self.batches, self.val_tiles = length // recipe.batch_size, len(self._val)
        if recipe.batch_size % world:
            raise ConfigError(
                f"a batch of {recipe.batch_size} cannot be divided among {world} devices",
                "Change batch_size in the recipe, or the number of devices.",
            )
        if not self.batches:
            raise DataError(
                f"an epoch has {length} tiles, less than one batch of {recipe.batch_size}",
                "Lower batch_size or raise tiles_per_epoch in the recipe.",
            )
        if self.val_tiles < world:
            raise DataError(f"the validation has {self.val_tiles} tiles for {world} devices", "Use fewer devices.")

    def training(self, epoch: int, first_batch: int = 0) -> DataLoader[object]:
        """Read the batches of an epoch (or errors) from one of them on; they depend on seed and epoch alone."""
        keys = epoch_keys(len(self._train), self._recipe.seed, epoch, self._recipe.tiles_per_epoch)
        return self._load(self._train, share_of(keys, self._recipe.batch_size, self._rank, self._world)[first_batch:])

    def validation(self) -> DataLoader[object]:
        """Read this process's batches of the validation (or errors)."""
        share = [(0, index) for index in range(self._rank, self.val_tiles, self._world)]
        size = self._recipe.batch_size // self._world
        return self._load(self._val, [share[first : first + size] for first in range(0, len(share), size)])

    def _load(self, tiles: TileDataset, batches: list[list[Key]]) -> DataLoader[object]:
        return DataLoader(
            tiles,
            batch_sampler=batches,
            num_workers=self._workers,
            collate_fn=_collated,
            worker_init_fn=_end_quietly,
            pin_memory=torch.cuda.is_available(),
        )


def _collated(batch: object) -> object:
    """Return a batch as it is: batches are put together where they are read."""
    return batch


def _end_quietly(worker: int) -> None:
    """Let SIGTERM end a worker without an error: where it is sent to all processes, the first one tells of it."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
