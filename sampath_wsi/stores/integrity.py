"""Damaged stores: find the chunks of a finished store that cannot be read, and keep the rest.

A store with damage is set aside as if its stage had been cut off before it wrote the damaged shards. So the stage, run
again, makes only these anew.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import zarr
from zarr.types import AnyArray

from sampath_wsi.errors import StoreError
from sampath_wsi.files import open_alone
from sampath_wsi.progress import Progress, stepper
from sampath_wsi.stores.shards import ChunkError, Shards, shard_path, shard_places
from sampath_wsi.stores.store import JOURNAL, aside_of, lost_files, read_kind, remove_store

# By kind of store, the array whose shards are the units of work of its stage: none of them is ever empty.
_UNITS = {"tiles": "rgb", "probabilities": "probability"}


@dataclass(frozen=True)
class Damage:
    """A shard of an array that cannot be read: its file, its place (numbers of shards), and the error.

    Where files are missing nobody knows which: there is no file and no place then.
    """

    array: str
    place: tuple[int, ...]
    file: Path | None
    what: str


def find_damage(path: Path, progress: Progress | None = None) -> list[Damage]:
    """Read everything that a finished store holds, a shard at a time.

    Raises
    ------
    StoreError
        If there is no finished store, or its metadata are damaged, so that nothing of it can be kept.
    """
    unit = _UNITS.get(read_kind(path))
    found: list[Damage] = []
    try:
        group = zarr.open_group(path, mode="r")
        arrays = [array for _, array in group.members(max_depth=None) if isinstance(array, zarr.Array)]
        if unit is not None and unit not in group:
            raise KeyError(unit)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise StoreError(
            f"{path}: its metadata are damaged ({error})", "Delete the store and run its stage again."
        ) from error
    places = [(array, place) for array in arrays for place in shard_places(array)]
    step = stepper(progress, len(places), "shards")
    for array, place in places:
        if (damage := _damage_at(array, place, complete=array.path == unit)) is not None:
            found.append(damage)
        step()
    return [*found, *(Damage(array, (), None, what) for array, what in lost_files(path).items())]


def set_aside(path: Path, damage: list[Damage]) -> int:
    """Turn a damaged store into an unfinished one without the damaged parts.

    Returns
    -------
    How many units of work its stage will find done.

    Raises
    ------
    StoreError
        If its stage runs at this moment.
    """
    unit = _UNITS.get(read_kind(path))
    done: list[int] = []
    if unit is not None:
        array = zarr.open_array(path, path=unit, mode="r")
        size = (array.shards or array.chunks)[0]
        # All arrays that a stage writes by units have their shards in the same order along the first axis.
        bad = {each.place[0] * size for each in damage if each.array != "tissue"}
        done = [first for first in range(0, array.shape[0], size) if first not in bad]
    aside = aside_of(path)
    held = open_alone(aside / JOURNAL, path)
    try:
        # In this order, so that a store cut off at any point is damaged as before, or unfinished.
        (path / JOURNAL).write_text("".join(f"{first}\n" for first in done), encoding="ascii")
        for each in damage:
            if each.file is not None:
                each.file.unlink(missing_ok=True)
        remove_store(aside)
        os.replace(path, aside)
    finally:
        os.close(held)
    return len(done)


def _damage_at(array: AnyArray, place: tuple[int, ...], complete: bool) -> Damage | None:
    file = shard_path(array, place)
    if not file.exists():
        return Damage(array.path, place, file, f"{file}: the file is missing") if complete else None
    sizes = zip(place, array.shards or array.chunks, array.shape, strict=True)
    try:
        Shards(array).read(*(slice(at * step, min((at + 1) * step, end)) for at, step, end in sizes))
    except ChunkError as error:
        return Damage(array.path, place, file, error.what)
    return None
