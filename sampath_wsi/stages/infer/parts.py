"""The inference of one slide by several jobs, on several GPUs or machines.

Each job computes a part: a run of whole batches, in a store of its own that grows in the folder
``probabilities.zarr.parts``. It has the layout of the whole one, so that its shard files are files of the whole store
too, and :func:`join` moves them there: what comes of it is, byte for byte, what a single job makes. So jobs have
nothing in common while they run, no lock either. Batches count wherever they lie: a slide may be cut into another
number of parts after an interruption, or none, and nothing is lost.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import zarr
from zarr.types import AnyArray

from sampath_wsi.errors import ConfigError, StoreError
from sampath_wsi.files import open_alone
from sampath_wsi.stages.infer.probabilities import IOU, PROBABILITY, RUN, batch_starts, begin_arrays, record_run
from sampath_wsi.stores.provenance import Provenance
from sampath_wsi.stores.shards import shard_path
from sampath_wsi.stores.store import (
    JOURNAL,
    GrowingStore,
    aside_of,
    finished_provenance,
    growing_provenance,
    growing_units,
    is_finished,
    open_store,
    read_array,
)

log = logging.getLogger(__name__)


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
            raise ConfigError(f"part '{text}' is unknown", "Write 2/4 for the second of four.")
        return cls(int(found[1]), int(found[2]))

    def path(self, out: Path) -> Path:
        """Return its store, which is never finished: it grows until its parts are joined."""
        return parts_folder(out) / f"{self.number}-of-{self.of}.zarr"

    def of_batches(self, starts: Sequence[int]) -> Sequence[int]:
        """Return its share of the batches: neighbours, about as many as those of the other parts; maybe none."""
        first, last = (len(starts) * number // self.of for number in (self.number - 1, self.number))
        return starts[first:last]


def parts_folder(out: Path) -> Path:
    """Return the folder in which the parts of a probability store grow."""
    return out.with_name(f"{out.name}.parts")


def begun_stores(out: Path) -> list[Provenance]:
    """Return the provenance of a finished store, and of the unfinished ones of the whole slide and of its parts."""
    growing = map(growing_provenance, (out, *_part_stores(out)))
    return [each for each in (finished_provenance(out), *growing) if each is not None]


def held_batches(out: Path, made_by: Provenance) -> set[int]:
    """Return the batches that were computed for a store already: by any part of any cut, or by a job for the whole."""
    alike = [path for path in (out, *_part_stores(out)) if _are_alike(growing_provenance(path), made_by)]
    return {start for path in alike for start in _batches(path)}


def take_finished(store: GrowingStore, finished: Path, starts: Sequence[int]) -> None:
    """Take the batches of a part from a finished store of the same provenance, which stays as it is.

    The workflow removes that store's ``zarr.json`` before it joins the parts, and with it the provenance, so the parts
    must hold all batches. Files get a second name; they are never written to again.
    """

    def link(source: Path, target: Path) -> None:
        target.unlink(missing_ok=True)
        os.link(source, target)

    _take(store, zarr.open_group(finished, mode="r"), starts, link)


def adopt_parts(store: GrowingStore) -> None:
    """Move the batches in parts of the same provenance into the store itself, whose arrays exist already.

    Raises
    ------
    StoreError
        If another process writes one of them.
    """
    with ExitStack() as locks:
        for path in _part_stores(store.path):
            locks.callback(os.close, open_alone(aside_of(path) / JOURNAL, path))
            if _are_alike(growing_provenance(path), store.provenance) and (named := growing_units(path)):
                _take(store, _open_growing(path), sorted(named), os.replace)


def remove_parts(out: Path) -> None:
    """Remove the parts of a finished store, and those left by an older version."""
    for folder in (parts_folder(out), out.with_name(f"{out.name}.shards")):
        if folder.exists():
            if folder.suffix == ".shards":
                log.info("%s: an older version of this program computed it; it is removed", folder)
            shutil.rmtree(folder)


def join(out: Path, of: int) -> dict[str, float]:
    """Make a probability store of its parts; nothing is computed, and no data are read.

    Parameters
    ----------
    out
        The store to write (``.../probabilities.zarr``).
    of
        Number of parts; batches left by other cuts are used too.

    Returns
    -------
    What their last runs did together, as the store keeps it.

    Raises
    ------
    StoreError
        If a part is missing, is not whole, was computed otherwise than the rest, or is being written.
    """
    try:
        return _join(out, [Part(number, of) for number in range(1, of + 1)])
    except StoreError:
        # By these the workflow holds parts for computed, and would not start their jobs again.
        for marker in parts_folder(out).glob("*.done"):
            marker.unlink()
        raise


def _join(out: Path, parts: Sequence[Part]) -> dict[str, float]:
    begun = {part: growing_provenance(part.path(out)) for part in parts}
    whole = None if (out / "zarr.json").exists() else growing_provenance(out)
    if whole is None and all(each is None or is_finished(out, each) for each in begun.values()):
        group, _ = open_store(out, "probabilities")
        remove_parts(out)
        return _facts(group)
    if whole and not any(begun.values()):  # joined before, and set aside since
        provenance, groups = whole, [_open_growing(out)]
    else:
        provenance, groups = _common(out, begun), [_open_growing(part.path(out)) for part in parts]
    facts = _sum_facts([_facts(group) for group in groups], len(provenance.grid.tiles))
    with GrowingStore.begin(out, provenance) as store:
        begin_arrays(store, groups[0])
        adopt_parts(store)
        for part in parts:
            missing = [start for start in part.of_batches(batch_starts(store.provenance)) if start not in store.done]
            if missing:
                what = f"part {part} is not finished, tile {missing[0]} is the first that it lacks"
                raise StoreError(f"{out}: {what}", _again(out, part))
        record_run(store, facts)
        store.finish()
    remove_parts(out)
    return facts


def _common(out: Path, begun: dict[Part, Provenance | None]) -> Provenance:
    """Return the one provenance of all parts."""
    first, one = next(iter(begun.items()))
    for part, each in begun.items():
        if one is None or each is None:
            raise StoreError(f"{out}: part {part} was not computed", _again(out, part))
        if not _are_alike(each, one):
            what = f"parts {first} and {part} were not computed alike: {one.differences(each)}"
            raise StoreError(f"{out}: {what}", _again(out, part))
    assert one is not None
    return one


def _again(out: Path, part: Part) -> str:
    return (
        f"Run 'sampath-wsi infer' with --part {part}, and the same model, batch and precision for all; or delete "
        f"{parts_folder(out)} and run the workflow again."
    )


def _facts(group: zarr.Group) -> dict[str, float]:
    """Return the facts of the run, as a store keeps them."""
    return dict(group[RUN].attrs) if RUN in group else {}  # type: ignore[arg-type]


def _sum_facts(runs: Sequence[dict[str, float]], tiles: int) -> dict[str, float]:
    """Return the facts of the runs of all parts; times are sums over the jobs."""
    facts: dict[str, float] = {"tiles": tiles, "computed": sum(run.get("computed", 0) for run in runs)}
    if seconds := sum(run.get("seconds", 0) for run in runs):
        busy_s = sum(run.get("seconds", 0) * run.get("device_busy", 0) for run in runs)
        facts |= {"seconds": round(seconds, 3), "device_busy": round(busy_s / seconds, 4)}
    return facts


def _part_stores(out: Path) -> list[Path]:
    """Return the stores of all parts of any cut that are there."""
    found = (re.fullmatch(r"\.(\d+)-of-(\d+)\.zarr\.partial", path.name) for path in parts_folder(out).glob(".*"))
    return [part.path(out) for part in sorted(Part(int(name[1]), int(name[2])) for name in found if name)]


def _are_alike(one: Provenance | None, other: Provenance) -> bool:
    return one is not None and one.is_like(other)


def _open_growing(path: Path) -> zarr.Group:
    return zarr.open_group(aside_of(path), mode="r")


def _batches(path: Path) -> set[int]:
    """Return the batches that a growing store holds: it may name more, whose files were moved to the whole store."""
    if not (named := growing_units(path)):
        return set()
    probability = read_array(_open_growing(path), PROBABILITY)
    return {start for start in named if _file(probability, start).exists()}


def _take(
    store: GrowingStore, source: zarr.Group, starts: Iterable[int], place: Callable[[Path, Path], object]
) -> None:
    """Give a store the files of batches that another one holds; ``place`` moves or links a file."""
    # The probabilities first: a part without them does not hold the batch, and a whole store with them gets the rest.
    arrays = [(read_array(source, name), read_array(store.group, name)) for name in (PROBABILITY, IOU)]
    for start in starts:
        if start in store.done:
            continue
        files = [(_file(there, start), _file(here, start)) for there, here in arrays]
        for old, new in files:
            if old.exists():
                new.parent.mkdir(parents=True, exist_ok=True)
                place(old, new)
        if all(new.exists() for _, new in files):
            store.mark_done(start)


def _file(array: AnyArray, start: int) -> Path:
    """Return the shard file of a batch."""
    size = (array.shards or array.chunks)[0]
    return shard_path(array, (start // size, *(0 for _ in array.shape[1:])))
