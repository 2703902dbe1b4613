"""Which samples a process of a training run takes, in an order that can be taken up anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from torch.utils.data import Sampler

from sampath_wsi.training.dataset import EpochSampler, Key


class RankSampler(Sampler[Key]):
    """The share of one process in the whole batches of an epoch.

    A batch of all processes together is what one process would take alone: each takes its part of it. So the result of
    a run does not depend on the number of processes, but for rounding.

    Parameters
    ----------
    keys
        All keys of an epoch, in an order that depends on the epoch alone.
    batch_size
        Samples of a batch of all processes together, a multiple of their number. What is left at the end of an epoch
        is dropped.
    rank, world
        Number of this process and how many there are.
    """

    def __init__(self, keys: EpochSampler, batch_size: int, rank: int = 0, world: int = 1) -> None:
        self._keys, self._batch_size, self._share = keys, batch_size, batch_size // world
        self._rank = rank
        self._epoch = self._first_batch = 0

    def begin_at(self, epoch: int, batch: int) -> None:
        """Let this epoch begin with a later batch, because those before it are done."""
        self.set_epoch(epoch)
        self._first_batch = batch

    def set_epoch(self, epoch: int) -> None:
        """Begin this epoch with the next iteration; the trainer calls it."""
        if epoch != self._epoch:
            self._first_batch = 0
        self._epoch = epoch
        self._keys.set_epoch(epoch)

    def __len__(self) -> int:
        """Keys of a whole epoch, wherever the next iteration begins: the trainer counts the batches itself."""
        return len(self._keys) // self._batch_size * self._share

    def __iter__(self) -> Iterator[Key]:
        # A generator runs when the first key is wanted: then the epoch is known.
        begin = self._first_batch * self._batch_size + self._rank * self._share
        end = len(self._keys) // self._batch_size * self._batch_size
        keys = list(islice(self._keys, end))
        for start in range(begin, end, self._batch_size):
            yield from keys[start : start + self._share]
