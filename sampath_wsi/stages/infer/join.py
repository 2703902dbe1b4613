"""Stage 2, what comes after: the parts of a slide, which several jobs computed, become one probability store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import zarr

from sampath_wsi.errors import StoreError
from sampath_wsi.stages.infer.parts import Part, adopt_parts, open_growing, parts_folder, remove_parts
from sampath_wsi.stages.infer.probabilities import RUN, batch_starts, begin_arrays, record_run
from sampath_wsi.stores.provenance import Provenance
from sampath_wsi.stores.store import GrowingStore, growing_provenance, is_finished, open_store


def join(out: Path, of: int) -> dict[str, float]:
    """Make a probability store of its parts; nothing is computed, and no data are read.

    Parameters
    ----------
    out
        The store to write (``.../probabilities.zarr``).
    of
        How many parts there are; what is left of other cuts is used too.

    Returns
    -------
    What their last runs did together, as the store keeps it.

    Raises
    ------
    StoreError
        If a part is missing, is not whole, was computed otherwise than the rest, or is being written.
    """
    try:
        return _join(out, of)
    except StoreError:
        # By these the workflow holds parts for computed, and would not start their jobs again.
        for marker in parts_folder(out).glob("*.done"):
            marker.unlink()
        raise


def _join(out: Path, of: int) -> dict[str, float]:
    parts = [Part(number, of) for number in range(1, of + 1)]
    begun = {part: growing_provenance(part.path(out)) for part in parts}
    whole = None if (out / "zarr.json").exists() else growing_provenance(out)
    if whole is None and all(each is None or is_finished(out, each) for each in begun.values()):
        group, _ = open_store(out, "probabilities")
        remove_parts(out)
        return _facts(group)
    if whole and not any(begun.values()):  # joined before, and set aside since
        provenance, groups = whole, [open_growing(out)]
    else:
        provenance = _common(out, begun)
        groups = [open_growing(part.path(out)) for part in parts]
    facts = _together([_facts(group) for group in groups], len(provenance.grid.tiles))
    with GrowingStore.begin(out, provenance) as store:
        begin_arrays(store, groups[0])
        adopt_parts(store)
        _check_whole(store, parts)
        record_run(store, facts)
        store.finish()
    remove_parts(out)
    return facts


def _common(out: Path, begun: dict[Part, Provenance | None]) -> Provenance:
    """The one provenance of all parts."""
    (first, one), *others = begun.items()
    for part, each in ((first, one), *others):
        if each is None or one is None:
            raise StoreError(f"{out}: shard {part} was not computed", _again(out, part))
        if (each.identity, each.computed) != (one.identity, one.computed):
            what = one.differences(each)
            raise StoreError(f"{out}: shards {first} and {part} were not computed alike: {what}", _again(out, part))
    assert one is not None
    return one


def _check_whole(store: GrowingStore, parts: Sequence[Part]) -> None:
    starts = batch_starts(store.provenance)
    for part in parts:
        missing = [start for start in part.of_batches(starts) if start not in store.done]
        if missing:
            raise StoreError(
                f"{store.path}: shard {part} is not finished, tile {missing[0]} is the first that it lacks",
                _again(store.path, part),
            )


def _again(out: Path, part: Part) -> str:
    return (
        f"Run 'sampath-wsi infer' with --shard {part}, and the same model, batch and precision for all; or delete "
        f"{parts_folder(out)} and run the workflow again."
    )


def _facts(group: zarr.Group) -> dict[str, float]:
    """How the run went that a store keeps."""
    return dict(group[RUN].attrs) if RUN in group else {}  # type: ignore[arg-type]


def _together(runs: Sequence[dict[str, float]], tiles: int) -> dict[str, float]:
    """How the runs of all parts went: times are sums over the jobs."""
    facts: dict[str, float] = {"tiles": tiles, "computed": sum(run.get("computed", 0) for run in runs)}
    if seconds := sum(run.get("seconds", 0) for run in runs):
        busy_s = sum(run.get("seconds", 0) * run.get("device_busy", 0) for run in runs)
        facts |= {"seconds": round(seconds, 3), "device_busy": round(busy_s / seconds, 4)}
    return facts
