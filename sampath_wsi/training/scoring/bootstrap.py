"""Percentile bootstrap of every score: how it would vary with other images, or other patients, of the same kind.

Images differ, pixels of one image hardly do: the unit that is drawn with replacement is the field, or the group of
fields (patient, slide) that belong together. Each draw is scored as a whole, from the sum of its confusion matrices.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sampath_wsi.metrics import scores_of

RESAMPLES = 2000
LEVEL = 0.95


def bootstrap(
    counts: NDArray[np.int64],
    class_names: Sequence[str],
    *,
    groups: Sequence[str] | None = None,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Intervals of all scores of :func:`sampath_wsi.metrics.scores_of`.

    Parameters
    ----------
    counts
        Confusion matrices of the fields, ``(n_fields, n_classes, n_classes + 1)``.
    groups
        The group of each field, to draw groups with all their fields (cluster bootstrap); by default fields are drawn.
    resamples
        How often.
    level
        Share of the resamples inside an interval.
    seed
        Determines the draws.

    Returns
    -------
    Lower and upper end by name. A score that a resample does not define (its class was not drawn) is left out of
    that resample; one that none defines has no interval, and nothing has one if there are fewer than two units.
    """
    units = counts if groups is None else _sums_by_group(counts, groups)
    if len(units) < 2:
        return {}
    draws = np.random.default_rng(seed).multinomial(len(units), np.full(len(units), 1 / len(units)), size=resamples)
    # In float64 the products are done by BLAS, and exact: no sum of pixels comes near 2^53.
    drawn = draws.astype(np.float64) @ units.reshape(len(units), -1).astype(np.float64)
    ends = (0.5 - level / 2, 0.5 + level / 2)
    intervals = {}
    for name, values in scores_of(drawn.reshape(-1, *units.shape[1:]), class_names).items():
        defined = values[np.isfinite(values)]
        if len(defined):
            low, high = np.quantile(defined, ends)
            intervals[name] = (float(low), float(high))
    return intervals


def _sums_by_group(counts: NDArray[np.int64], groups: Sequence[str]) -> NDArray[np.int64]:
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.zeros((len(names), *counts.shape[1:]), np.int64)
    np.add.at(sums, index, counts)
    return sums
