"""The loaders of a training run: which tiles each process reads, and how a bad one is reported."""

from __future__ import annotations

import logging
import os
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from sampath_wsi.errors import ConfigError, DataError, SampathError
from sampath_wsi.training.data.leakage import find_leakage
from sampath_wsi.training.data.prepared import PreparedData
from sampath_wsi.training.dataset import EpochSampler, Key, TileDataset
from sampath_wsi.training.recipe import Recipe
from sampath_wsi.training.sampling import RankSampler

Batch = tuple[Tensor, Tensor]
_MOST_WORKERS = 8

log = logging.getLogger(__name__)


class _Reported(Dataset[Any]):
    """A data set that hands out its errors: raised in a worker they would come out as a traceback."""

    def __init__(self, tiles: TileDataset) -> None:
        self._tiles = tiles

    def __len__(self) -> int:
        return len(self._tiles)

    def __getitem__(self, key: Key) -> tuple[Tensor, Tensor] | SampathError:
        try:
            return self._tiles[key]
        except SampathError as error:
            return error


def _collate(items: list[Any]) -> Any:
    """A batch, or the first error in it."""
    return next((item for item in items if isinstance(item, SampathError)), None) or default_collate(items)


class Loaders(NamedTuple):
    """Loaders of one process.

    Batches are pairs of images ``(B, 3, S, S)`` and labels ``(B, S, S)``, or the error of a tile that cannot be read.
    """

    train: DataLoader[Any]
    val: DataLoader[Any]
    sampler: RankSampler
    """Of the training."""


def make_loaders(recipe: Recipe, data: PreparedData, rank: int = 0, world: int = 1, workers: int = 0) -> Loaders:
    """Loaders of one of several processes for training and validation.

    Raises
    ------
    ConfigError
        If the batches cannot be divided among the processes.
    DataError
        If a split is empty, or too small for a batch.
    """
    if recipe.batch_size % world:
        raise ConfigError(
            f"a batch of {recipe.batch_size} cannot be divided among {world} devices",
            "Change batch_size in the recipe, or the number of devices.",
        )
    train_samples, val_samples = data.split(recipe.train_split), data.split(recipe.val_split)
    leakage = find_leakage({recipe.train_split: train_samples, recipe.val_split: val_samples}, data.sizes_px)
    if leakage.leaks:
        log.warning("%s: the scores of the validation will be too good", leakage.summary)
    train_set = TileDataset(data, train_samples, recipe.tile_px, recipe.augment, recipe.seed)
    val_set = TileDataset(data, val_samples, recipe.tile_px)
    keys = EpochSampler(len(train_set), recipe.seed, recipe.tiles_per_epoch)
    if len(keys) < recipe.batch_size:
        raise DataError(
            f"an epoch has {len(keys)} tiles, less than one batch of {recipe.batch_size}",
            "Lower batch_size or raise tiles_per_epoch in the recipe.",
        )
    if len(val_set) < world:
        raise DataError(f"the validation has {len(val_set)} tiles for {world} devices", "Use fewer devices.")

    def load(tiles: TileDataset, sampler: Any) -> DataLoader[Any]:
        return DataLoader(
            _Reported(tiles),
            recipe.batch_size // world,
            sampler=sampler,
            num_workers=workers,
            collate_fn=_collate,
            pin_memory=torch.cuda.is_available(),
        )

    sampler = RankSampler(keys, recipe.batch_size, rank, world)
    share = [(0, index) for index in range(rank, len(val_set), world)]
    return Loaders(load(train_set, sampler), load(val_set, share), sampler)


def default_workers(kind: str, world: int) -> int:
    """Processes that read tiles: none beside a CPU, which has no time to wait; else the cores that there are."""
    if kind == "cpu":
        return 0
    return max(1, min(_MOST_WORKERS, (os.cpu_count() or 1) // world - 1))
