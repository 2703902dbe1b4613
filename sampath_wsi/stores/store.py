"""Zarr stores that are begun, resumed, finished and opened again; the layouts are in the stages that write them.

A store grows aside, in ``.NAME.partial`` next to its final path, and is renamed into place when it is whole, so that
a path that exists is a finished store. Its root attributes record what made it
(:class:`sampath_wsi.stores.provenance.Provenance`), and an unfinished store is resumed only if all that made it is the
same. The journal in it is two things in one file: the list of the units of work (shards) that are safely written, which
the files alone do not tell, since shards of zeros are not written; and the lock that keeps a second writer off, which
the system frees when the process ends. All arrays are Zarr v3, sharded, and every chunk carries a checksum.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import shutil
from pathlib import Path
from typing import Any, NotRequired, Self, TypedDict, Unpack

import numpy as np
import zarr
from numpy.typing import DTypeLike
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.core.array_spec import ArrayConfigParams
from zarr.types import AnyArray

from sampath_wsi.errors import StoreError
from sampath_wsi.files import open_alone
from sampath_wsi.stores.provenance import Kind, Provenance

log = logging.getLogger(__name__)

_KEY = "sampath_wsi"
_FILES_KEY = "sampath_wsi_files"
JOURNAL = "done.journal"
DEFAULT_CODEC = ZstdCodec(level=1)


class ArrayLayout(TypedDict):
    """Layout of a stored array.

    ``codec`` compresses it (None: not at all). ``skip_empty`` leaves out chunks of zeros, at the price of a look at
    every byte that is written.
    """

    shape: tuple[int, ...]
    dtype: DTypeLike
    chunks: tuple[int, ...]
    shards: tuple[int, ...]
    dimension_names: tuple[str, ...]
    attributes: NotRequired[dict[str, Any]]
    codec: NotRequired[BytesBytesCodec | None]
    skip_empty: NotRequired[bool]


class GrowingStore:
    """A store that is being written: made by :meth:`begin`, put in place by :meth:`finish`.

    As a context it releases its lock at the end of the block; an unfinished store stays for the next run.
    """

    def __init__(self, path: Path, provenance: Provenance, group: zarr.Group, done: set[int], journal: int) -> None:
        self.path = path
        self.provenance = provenance
        self.group = group
        self.done = done
        self._journal: int | None = journal

    @classmethod
    def begin(cls, path: Path, provenance: Provenance) -> GrowingStore:
        """Begin a store, or go on with the one that was begun before, if all that made it is the same.

        How it is computed must be the same too: one store never mixes two precisions.

        Raises
        ------
        StoreError
            If another process is writing it.
        """
        aside = aside_of(path)
        journal = open_alone(aside / JOURNAL, path)
        try:
            begun = growing_provenance(path)
            if begun is not None and begun.is_like(provenance):
                provenance = begun  # its names are those on disk
                for cut_short in aside.rglob("*.partial"):  # files that zarr had not yet renamed when a run was killed
                    cut_short.unlink()
                group, done = zarr.open_group(aside, mode="r+"), _read_journal(aside)
            else:
                _say_why_anew(path, begun, provenance)
                _empty(aside)
                os.ftruncate(journal, 0)
                group = zarr.create_group(aside, zarr_format=3, attributes={_KEY: provenance.to_json()})
                done = set()
            # Begun with a space: a number that a crash cut short does not count.
            os.write(journal, f" process {os.getpid()} on {platform.node()}\n".encode())
        except BaseException:
            os.close(journal)
            raise
        return cls(path, provenance, group, done, journal)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._let_go()

    def array(self, name: str, **layout: Unpack[ArrayLayout]) -> AnyArray:
        """Create an array (see :func:`create_array`), or open it if an earlier run created it."""
        if name not in self.group:
            return create_array(self.group, name, **layout)
        found = self.group[name]
        assert isinstance(found, zarr.Array)
        return found.with_config(_config(layout))

    def mark_done(self, unit: int) -> None:
        """Record that a unit of work is written; only then may a later run skip it. Threads may call it."""
        assert self._journal is not None
        os.write(self._journal, f"{unit}\n".encode())
        os.fsync(self._journal)
        self.done.add(unit)

    def record_files(self) -> None:
        """Note how many shard files each array has, for :func:`lost_files`: of arrays whose shards may be empty."""
        self.group.attrs[_FILES_KEY] = _count_files(aside_of(self.path))

    def finish(self) -> None:
        """Put the store in place, over an older one of the same name."""
        remove_store(self.path)
        os.replace(aside_of(self.path), self.path)
        self._let_go()
        # Last, since a run that is killed before would find nothing done.
        (self.path / JOURNAL).unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove the unfinished store; the next run begins anew."""
        self._let_go()
        shutil.rmtree(aside_of(self.path))

    def _let_go(self) -> None:
        if self._journal is not None:
            os.close(self._journal)
            self._journal = None


def create_array(group: zarr.Group, name: str, **layout: Unpack[ArrayLayout]) -> AnyArray:
    """Create a sharded Zarr v3 array, filled with zeros, with a CRC-32C on every chunk."""
    codec = layout.get("codec", DEFAULT_CODEC)
    return group.create_array(
        name,
        shape=layout["shape"],
        dtype=np.dtype(layout["dtype"]),
        chunks=layout["chunks"],
        shards=layout["shards"],
        compressors=[*([] if codec is None else [codec]), Crc32cCodec()],
        fill_value=0,
        dimension_names=layout["dimension_names"],
        attributes=layout.get("attributes"),
        config=_config(layout),
    )


def _config(layout: ArrayLayout) -> ArrayConfigParams:
    """Return what Zarr is told of writing an array; the array itself does not record it."""
    return {"write_empty_chunks": not layout.get("skip_empty", True)}


def open_store(path: Path, kind: Kind) -> tuple[zarr.Group, Provenance]:
    """Open a finished store read-only.

    Raises
    ------
    StoreError
        If there is no finished store, or it is of another kind or format.
    """
    path = Path(path)
    if not (path / "zarr.json").is_file():
        hint = (
            "It was begun but not finished: run the stage again."
            if aside_of(path).exists()
            else "Run that stage first."
        )
        raise StoreError(f"{path}: there is no finished {kind} store", hint)
    record = _read_record(path)
    if record is None or record.get("kind") != kind:
        raise StoreError(f"{path}: this is not a {kind} store of sampath-wsi", "Check the path.")
    try:
        provenance = Provenance.from_json(record)
    except StoreError as error:
        raise StoreError(f"{path}: {error}") from error
    for what in lost_files(path).values():
        raise StoreError(what, f"Run 'sampath-wsi check --repair {path}', then its stage, or the workflow, again.")
    return zarr.open_group(path, mode="r"), provenance


def open_input(path: Path, kind: Kind) -> tuple[zarr.Group, Provenance]:
    """Open a finished store as the input of a stage.

    Raises
    ------
    StoreError
        As :func:`open_store` does, and where an older version of a stage made it.
    """
    group, provenance = open_store(path, kind)
    if outdated := provenance.outdated():
        raise StoreError(f"{path}: {outdated}", "Run that stage and those after it, or the workflow, again.")
    return group, provenance


def lost_files(path: Path) -> dict[str, str]:
    """Return the arrays of a finished store that have fewer shard files than when it was finished, with what is wrong.

    Zarr takes a file that is missing for zeros. Stores in which no shard can be empty record nothing, and lose nothing.
    """
    recorded = _read_attributes(path).get(_FILES_KEY, {})
    there = _count_files(path) if recorded else {}
    return {
        name: f"{path}: {count - there.get(name, 0)} of {count} files of the array '{name}' are missing"
        for name, count in recorded.items()
        if there.get(name, 0) < count
    }


def read_kind(path: Path) -> str:
    """Return the kind of a finished store.

    Raises
    ------
    StoreError
        If there is no finished store.
    """
    record = _read_record(path)
    if record is None or not isinstance(record.get("kind"), str):
        raise StoreError(f"{path}: this is not a finished store of sampath-wsi", "Check the path.")
    return str(record["kind"])


def read_array(group: zarr.Group, name: str) -> AnyArray:
    """Return an array of an opened store.

    Raises
    ------
    StoreError
        If the store lacks it, or its metadata are damaged.
    """
    try:
        found = group.get(name)
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{group.store_path}: the metadata of the array '{name}' are damaged ({error})", "Make the store anew."
        ) from error
    if not isinstance(found, zarr.Array):
        raise StoreError(f"{group.store_path}: the array '{name}' is missing", "Make the store anew.")
    return found


def is_finished(path: Path, provenance: Provenance) -> bool:
    """Return whether a finished store of this identity lies at the path."""
    made_by = finished_provenance(Path(path))
    found = made_by is not None and made_by.identity == provenance.identity
    if found and (journal := Path(path) / JOURNAL).exists():
        journal.unlink(missing_ok=True)  # left by a run that was killed at its last step
    return found


def is_begun(path: Path, provenance: Provenance) -> bool:
    """Return whether a store of this identity was begun at the path, and not finished."""
    begun = growing_provenance(path)
    return begun is not None and begun.is_like(provenance)


def growing_provenance(path: Path) -> Provenance | None:
    """Return the provenance of an unfinished store; None if there is none, or this version cannot go on with it."""
    return finished_provenance(aside_of(path))


def finished_provenance(path: Path) -> Provenance | None:
    """Return the provenance of a finished store; None if there is none that this version can use."""
    record = _read_record(path)
    try:
        return None if record is None else Provenance.from_json(record)
    except StoreError:
        return None


def growing_units(path: Path) -> set[int]:
    """Return the units of work that a store which is not finished holds; another process may be writing more."""
    return _read_journal(aside_of(path))


def remove_store(path: Path) -> None:
    """Remove a finished store, if there is one; it stops counting as finished before its data go."""
    path = Path(path)
    if path.exists():
        (path / "zarr.json").unlink(missing_ok=True)
        shutil.rmtree(path)


def aside_of(path: Path) -> Path:
    """Return the folder in which a store grows."""
    return path.with_name(f".{path.name}.partial")


def _empty(aside: Path) -> None:
    """Remove the data of another run, but not the journal, which is locked."""
    for entry in aside.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != JOURNAL:
            entry.unlink()


def _count_files(path: Path) -> dict[str, int]:
    """Count the shard files of each array, by its name."""
    counts = {}
    for folder in sorted(path.rglob("c")):
        files = [name for _, _, names in os.walk(folder) for name in names if not name.endswith(".partial")]
        counts[str(folder.parent.relative_to(path))] = len(files)
    return counts


def _read_record(path: Path) -> dict[str, object] | None:
    record = _read_attributes(path).get(_KEY)
    return record if isinstance(record, dict) else None


def _say_why_anew(path: Path, begun: Provenance | None, wanted: Provenance) -> None:
    """Log why an earlier store is not used."""
    for place, found in ((aside_of(path), begun), (path, finished_provenance(path))):
        if found is not None:
            log.info("%s: made anew, since this differs: %s", place, found.differences(wanted))
        elif _read_record(place) is not None:
            log.info("%s: made anew, since another version of this program wrote it", place)


def _read_attributes(path: Path) -> dict[str, Any]:
    try:
        attributes = json.loads((path / "zarr.json").read_text())["attributes"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return attributes if isinstance(attributes, dict) else {}


def _read_journal(aside: Path) -> set[int]:
    try:
        text = (aside / JOURNAL).read_text(encoding="ascii")
    except FileNotFoundError:
        return set()
    # A line that a crash cut short has no newline and does not count.
    return {int(line) for line in text.split("\n")[:-1] if line.isdigit()}
