"""The layout of ``probabilities.zarr``, the store of stage 2.

``probability (tile, class, y, x)`` uint8 (p = v / 255; the bytes of a pixel sum to 255) at the decoder's own
resolution, one chunk a tile and one shard a batch; ``iou (tile, class)`` float32, the model's own estimate;
``tissue (y, x)`` copied from the tile store; the attributes of the group ``run`` tell how the run went that finished
the store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import zarr
from zarr.types import AnyArray

from sampath_wsi.errors import StoreError
from sampath_wsi.stores.provenance import Computed, Provenance
from sampath_wsi.stores.shards import read_whole
from sampath_wsi.stores.store import GrowingStore, read_array

PROBABILITY, IOU, TISSUE, RUN = "probability", "iou", "tissue", "run"


def batch_starts(made_by: Provenance) -> Sequence[int]:
    """Return the first tile of every batch; batches depend on tile positions alone, not on the run or job."""
    return range(0, len(made_by.grid.tiles), how_computed(made_by).batch)


def how_computed(made_by: Provenance) -> Computed:
    """Return the precision and batch that a probability store records."""
    if made_by.computed is None:
        raise StoreError("a probability store does not say how it was computed", "Make it anew.")
    return made_by.computed


def begin_arrays(store: GrowingStore, source: zarr.Group) -> tuple[AnyArray, AnyArray]:
    """Create the arrays of a probability store, unless an earlier run did, and copy the tissue.

    Parameters
    ----------
    source
        A store with the slide's tissue.

    Returns
    -------
    ``probability`` and ``iou``.
    """
    grid, batch = store.provenance.grid, how_computed(store.provenance).batch
    size, count, classes = grid.tile_map_px, len(grid.tiles), len(store.provenance.classes)
    probability = store.array(
        PROBABILITY,
        shape=(count, classes, size, size),
        dtype=np.uint8,
        chunks=(1, classes, size, size),
        shards=(batch, classes, size, size),
        dimension_names=("tile", "class", "y", "x"),
    )
    iou = store.array(
        IOU,
        shape=(count, classes),
        dtype=np.float32,
        chunks=(batch, classes),
        shards=(batch, classes),
        dimension_names=("tile", "class"),
        skip_empty=False,
    )
    tissue = read_array(source, TISSUE)
    copy = store.array(
        TISSUE,
        shape=tissue.shape,
        dtype=tissue.dtype,
        chunks=tissue.chunks,
        shards=tissue.shards or tissue.chunks,
        dimension_names=("y", "x"),
        attributes=dict(tissue.attrs),
    )
    copy[:] = read_whole(tissue)
    return probability, iou


def record_run(store: GrowingStore, facts: Mapping[str, float]) -> None:
    """Record the run that finished the store, in a group of its own, because it differs between equal stores."""
    store.group.create_group(RUN, attributes=dict(facts), overwrite=True)
