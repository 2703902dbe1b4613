"""Connected regions of a class map: the largest sets of equal pixels that hang together by their sides.

All regions of all classes are found at once: the map is cut into runs of equal pixels along its rows, and runs of equal
label that touch in neighbouring rows are linked. The cost is two comparisons a pixel and a sparse graph of the runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Regions:
    """The 4-connected regions of a window, numbered by their first pixel in reading order.

    Parameters
    ----------
    image
        ``(height, width)`` int32, the region of every pixel.
    run_start
        ``(runs,)``, where each run of equal pixels begins in the flattened window.
    run_region
        ``(runs,)``, its region.
    label
        ``(regions,)``, the label value of each region.
    first
        ``(regions,)``, its first pixel in the flattened window.
    area
        ``(regions,)``, its number of pixels.
    """

    image: NDArray[np.int32]
    run_start: Ints
    run_region: NDArray[np.int32]
    label: NDArray[Any]
    first: Ints
    area: Ints

    def __len__(self) -> int:
        return len(self.label)


def group(n: int, a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.int32]:
    """Numbers of the groups into which links ``a - b`` join ``n`` nodes, ascending by the first node of each."""
    links = coo_array((np.ones(len(a), dtype=np.bool_), (a, b)), shape=(n, n))
    count, found = connected_components(links, directed=False)
    first = np.empty(count, dtype=np.int64)
    # Of several values for one place the last stays, here that of the first node.
    first[found[::-1]] = np.arange(n - 1, -1, -1)
    rank = np.empty(count, dtype=np.int32)
    rank[np.argsort(first)] = np.arange(count, dtype=np.int32)
    numbers: NDArray[np.int32] = rank[found]
    return numbers


def connected_regions(labels: NDArray[Any]) -> Regions:
    """Find the 4-connected regions of a non-empty ``(height, width)`` label map."""
    height, width = labels.shape
    if (labels == labels[0, 0]).all():
        return _one_region(labels)
    starts = np.empty((height, width), dtype=np.bool_)
    starts[:, 0] = True
    np.not_equal(labels[:, 1:], labels[:, :-1], out=starts[:, 1:])
    run_start = np.flatnonzero(starts)
    run_length = np.diff(run_start, append=height * width)
    run_of_pixel = np.repeat(np.arange(len(run_start), dtype=np.int32), run_length)

    # Two runs that touch do so first where one of them begins: one link there is enough.
    touch = (labels[1:] == labels[:-1]) & (starts[1:] | starts[:-1])
    upper = np.flatnonzero(touch)
    run_region = group(len(run_start), run_of_pixel[upper], run_of_pixel[upper + width])

    n = int(run_region.max()) + 1
    first = np.full(n, height * width, dtype=np.int64)
    np.minimum.at(first, run_region, run_start)
    return Regions(
        image=np.repeat(run_region, run_length).reshape(height, width),
        run_start=run_start,
        run_region=run_region,
        label=labels.ravel()[first],
        first=first,
        area=np.bincount(run_region, weights=run_length, minlength=n).astype(np.int64),
    )


def _one_region(labels: NDArray[Any]) -> Regions:
    zero = np.zeros(1, dtype=np.int64)
    return Regions(
        image=np.zeros(labels.shape, dtype=np.int32),
        run_start=zero,
        run_region=zero.astype(np.int32),
        label=labels[0, :1].copy(),
        first=zero,
        area=np.array([labels.size]),
    )


def region_sums(regions: Regions, channels: NDArray[Any]) -> NDArray[np.float64]:
    """Sums of every channel over every region; exact for integers.

    Parameters
    ----------
    channels
        ``(channel, height, width)`` of the same window.

    Returns
    -------
    ``(regions, channel)``, in the unit of the channels.
    """
    dtype = np.int64 if channels.dtype.kind in "ui" else np.float64
    sums = np.empty((len(regions), len(channels)))
    for i, channel in enumerate(channels):
        runs = np.add.reduceat(channel.ravel(), regions.run_start, dtype=dtype)
        sums[:, i] = np.bincount(regions.run_region, weights=runs, minlength=len(regions))
    return sums


def count_pairs(a: NDArray[Any], b: NDArray[Any], n: int) -> tuple[Ints, Ints, Ints]:
    """Count unordered pairs of numbers below ``n``.

    Returns
    -------
    Lesser and greater number of each different pair, and how often it occurs; ascending.
    """
    key = np.minimum(a, b).astype(np.int64) * n + np.maximum(a, b)
    pair, count = np.unique(key, return_counts=True)
    return pair // n, pair % n, count


def borders(regions: Regions) -> tuple[Ints, Ints, Ints]:
    """Which regions of a window touch along pixel sides, and along how many."""
    image = regions.image
    beside, below = image[:, 1:] != image[:, :-1], image[1:] != image[:-1]
    a = np.concatenate([image[:, :-1][beside], image[:-1][below]])
    b = np.concatenate([image[:, 1:][beside], image[1:][below]])
    return count_pairs(a, b, len(regions))
