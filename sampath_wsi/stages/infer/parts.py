"""The inference of one slide by several jobs, on several GPUs or machines.

Each job computes a part: a run of whole batches, in a store of its own that grows in the folder
``probabilities.zarr.parts`` and has the layout of the whole one, so that its shard files are files of the whole store
too. :mod:`sampath_wsi.stages.infer.join` moves them there: what comes of it is, byte for byte, what a single job makes.
Batches count wherever they lie, so a slide may be cut into another number of parts after an interruption, or none, and
nothing is lost.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import zarr

from sampath_wsi.errors import ConfigError
from sampath_wsi.files import open_alone
from sampath_wsi.stages.infer.probabilities import IOU, PROBABILITY
from sampath_wsi.stores.provenance import Provenance
from sampath_wsi.stores.shards import shard_path
from sampath_wsi.stores.store import (
    JOURNAL,
    GrowingStore,
    aside_of,
    finished_provenance,
    growing_provenance,
    growing_units,
    read_array,
)


@dataclass(frozen=True, order=True)
class Part:
    """Part ``number`` (from 1) of a slide whose inference is shared by ``of`` jobs."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "2/4".

        Raises
        ------
        ConfigError
            If it is no such thing.
        """
        found = re.fullmatch(r"([0-9]{1,4})/([0-9]{1,4})", text)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise ConfigError(f"shard '{text}' is unknown", "Write 2/4 for the second of four.")
        return cls(int(found[1]), int(found[2]))

    def path(self, out: Path) -> Path:
        """Its store, which is never finished: it grows until its parts are joined."""
        return parts_folder(out) / f"{self.number}-of-{self.of}.zarr"

    def of_batches(self, starts: Sequence[int]) -> Sequence[int]:
        """Its share of the batches: neighbours, about as many as those of the other parts; maybe none."""
        first, last = (len(starts) * number // self.of for number in (self.number - 1, self.number))
        return starts[first:last]


def parts_folder(out: Path) -> Path:
    """Where the parts of a probability store grow."""
    return out.with_name(f"{out.name}.parts")


def begun_stores(out: Path) -> list[Provenance]:
    """What made a store that is finished, and those that grow: for the whole slide, and its parts."""
    growing = (growing_provenance(path) for path in (out, *(part.path(out) for part in _parts(out))))
    return [each for each in (finished_provenance(out), *growing) if each is not None]


def held_batches(out: Path, made_by: Provenance) -> set[int]:
    """The batches that were computed for a store already: by any part of any cut, or by a job for the whole."""
    stores = (out, *(part.path(out) for part in _parts(out)))
    return {start for path in stores if _is_alike(path, made_by) for start in _batches(path)}


def take_finished(store: GrowingStore, finished: Path, starts: Sequence[int]) -> None:
    """Take the batches of a part from a finished store of the same provenance, which stays as it is.

    The workflow removes that store's ``zarr.json`` before it joins the parts, and with it what says who made it: so the
    parts must hold all batches. Files get a second name; they are never written to again.
    """
    whole = zarr.open_group(finished, mode="r")
    arrays = [(read_array(whole, name), read_array(store.group, name)) for name in (IOU, PROBABILITY)]
    for start in starts:
        if start in store.done:
            continue
        for source, target in ((_file(there, start), _file(here, start)) for there, here in arrays):
            if source.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.unlink(missing_ok=True)
                os.link(source, target)
        if target.exists():
            store.mark_done(start)


def adopt_parts(store: GrowingStore) -> None:
    """Move what parts of the same provenance hold into the store itself, whose arrays are there.

    Raises
    ------
    StoreError
        If another process writes one of them.
    """
    with ExitStack() as locks:
        for part in _parts(store.path):
            path = part.path(store.path)
            locks.callback(os.close, open_alone(aside_of(path) / JOURNAL, path))
            if _is_alike(path, store.provenance):
                _adopt(store, path)


def remove_parts(out: Path) -> None:
    """Remove the parts of a store that is finished."""
    if parts_folder(out).exists():
        shutil.rmtree(parts_folder(out))


def open_growing(path: Path) -> zarr.Group:
    """A store that is not finished, of a part or of the whole slide, as it is; read-only."""
    return zarr.open_group(aside_of(path), mode="r")


def _parts(out: Path) -> list[Part]:
    """All parts of any cut that are there."""
    found = (re.fullmatch(r"\.(\d+)-of-(\d+)\.zarr\.partial", path.name) for path in parts_folder(out).glob(".*"))
    return sorted(Part(int(name[1]), int(name[2])) for name in found if name)


def _is_alike(path: Path, made_by: Provenance) -> bool:
    """Whether a growing store was begun by the same, and is computed in the same precision and batches."""
    begun = growing_provenance(path)
    return begun is not None and (begun.identity, begun.computed) == (made_by.identity, made_by.computed)


def _file(array: zarr.Array[Any], start: int) -> Path:
    """The shard file of a batch."""
    size = (array.shards or array.chunks)[0]
    return shard_path(array, (start // size, *(0 for _ in array.shape[1:])))


def _batches(path: Path) -> set[int]:
    """The batches that a growing store holds: it may name more, whose files were moved to the whole store."""
    if not (named := growing_units(path)):
        return set()
    probability = read_array(open_growing(path), PROBABILITY)
    return {start for start in named if _file(probability, start).exists()}


def _adopt(store: GrowingStore, path: Path) -> None:
    """Move the batches of a part into the whole store."""
    if not (named := growing_units(path) - store.done):
        return
    # The probabilities first: a part without them does not hold the batch, and a whole store with them gets the rest.
    arrays = [(read_array(open_growing(path), name), read_array(store.group, name)) for name in (PROBABILITY, IOU)]
    for start in sorted(named):
        files = [(_file(part, start), _file(whole, start)) for part, whole in arrays]
        for source, target in files:
            if source.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(source, target)
        if files[0][1].exists():
            store.mark_done(start)
