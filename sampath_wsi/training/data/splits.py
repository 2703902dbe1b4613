"""Splits into training and validation: groups dealt to folds with a seed, and kept apart from a test split.

Samples come back with another ``split``, or fewer of them; :func:`write_splits` makes the splits file that
:func:`sampath_wsi.training.data.prepared.read_prepared` takes in place of the column ``split``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sampath_wsi.errors import ConfigError, DataError
from sampath_wsi.files import write_table
from sampath_wsi.options import SplitOptions
from sampath_wsi.training.data.authors_folds import load_folds, split_as_authors
from sampath_wsi.training.data.prepared import TRAIN, VAL, PreparedData, Sample

ClassPixels = Mapping[str, NDArray[np.integer]]
"""Pixels of each class ``(n_classes,)`` by name of the sample."""


def make_splits(data: PreparedData, options: SplitOptions) -> tuple[Sample, ...]:
    """Return the samples that remain, in their new splits.

    Raises
    ------
    ConfigError, DataError
        If the data do not allow it.
    """
    samples, dealt = data.samples, tuple(options.within) or (TRAIN,)
    if options.authors is not None:
        samples, dealt = split_as_authors(samples, load_folds(options.authors), options.fold), (TRAIN, VAL)
    if options.disjoint_from is not None:
        samples = without_groups_of(samples, options.disjoint_from, dealt)
    if options.folds is not None:
        shares, val_part = (1.0,) * options.folds, options.fold
    elif options.val_share is not None:
        shares, val_part = (1 - options.val_share, options.val_share), 1
    else:
        return samples
    class_px = count_class_px(data, [s for s in samples if s.split in dealt])
    return split_groups(samples, shares, val_part, within=dealt, seed=options.seed, class_px=class_px)


def write_splits(path: Path, samples: Sequence[Sample]) -> None:
    """Write a splits file: ``sample,split``, a row a sample."""
    write_table(path, [{"sample": s.sample, "split": s.split} for s in samples])


def split_groups(
    samples: Sequence[Sample],
    shares: Sequence[float],
    val_part: int,
    *,
    within: Sequence[str] = (TRAIN,),
    seed: int = 0,
    class_px: ClassPixels | None = None,
) -> tuple[Sample, ...]:
    """Split the samples of ``within`` anew into ``train`` and ``val``, whole groups at a time.

    Parameters
    ----------
    samples
        All samples; those of other splits come back as they are.
    shares
        How large the parts are to be: five equal ones for five folds, ``(0.8, 0.2)`` for a validation share of 0.2.
    val_part
        The part that validates; all others train.
    within
        The splits that are dealt.
    seed, class_px
        See :func:`deal_groups`.

    Raises
    ------
    ConfigError
        If there are fewer groups than parts, or ``train`` or ``val`` exists outside of ``within``.
    DataError
        If a split of ``within`` has no sample.
    """
    pool = [s for s in samples if s.split in within]
    present = {s.split for s in samples}
    if absent := [name for name in within if name not in present]:
        raise _no_sample(samples, absent[0])
    if clash := {TRAIN, VAL} & present - set(within):
        name = min(clash)
        raise ConfigError(f"there is a split {name!r} already", f"Deal it too (--within {name}).")
    part_of = deal_groups(pool, shares, seed=seed, class_px=class_px)
    anew = {s.sample: VAL if part_of[s.group] == val_part else TRAIN for s in pool}
    return tuple(replace(s, split=anew.get(s.sample, s.split)) for s in samples)


def deal_groups(
    samples: Sequence[Sample], shares: Sequence[float], *, seed: int = 0, class_px: ClassPixels | None = None
) -> dict[str, int]:
    """Deal whole groups to parts of given shares, balanced by samples and by the pixels of each class.

    Groups that bring most come first; each goes to the part that has least, for its share, of what the group brings.
    Samples count as much as all classes together. No part gets more samples than its share and one (the largest) group,
    and none stays empty.

    Parameters
    ----------
    samples
        All are dealt.
    shares
        The parts' shares, in any unit.
    seed
        Decides between equals: groups that bring about as much come in random order.
    class_px
        Without it only samples are balanced.

    Returns
    -------
    The part of every group.

    Raises
    ------
    ConfigError
        If there are fewer groups than parts.
    """
    groups, sizes, weights = _weigh(samples, class_px)
    if len(groups) < len(shares):
        raise ConfigError(
            f"{len(groups)} groups cannot be dealt to {len(shares)} parts", "Ask for fewer folds, or add data."
        )
    rng = np.random.default_rng(seed)
    share = np.asarray(shares, np.float64) / np.sum(shares)
    counts, filled = np.zeros(len(share), np.int64), np.zeros((len(share), weights.shape[1]))
    part_of: dict[str, int] = {}
    _, magnitude = np.frexp(np.linalg.norm(weights, axis=1))
    for group in sorted(rng.permutation(len(groups)), key=lambda g: -int(magnitude[g])):
        size, weight = sizes[group], weights[group]
        allowed = counts + size <= share * (counts.sum() + size) + sizes.max() + 1e-9
        if np.sum(counts == 0) == len(groups) - len(part_of):
            allowed &= counts == 0
        # How much the sum of the squares of all filling grows.
        cost = np.where(allowed, (2 * filled + weight) @ weight / share, np.inf)
        part = rng.choice(np.flatnonzero(cost == cost.min()))
        counts[part] += size
        filled[part] += weight
        part_of[groups[group]] = int(part)
    return part_of


def _weigh(
    samples: Sequence[Sample], class_px: ClassPixels | None
) -> tuple[list[str], NDArray[np.int64], NDArray[np.float64]]:
    """Return the groups, their samples, and each group's share of all samples and of each class's pixels."""
    groups = sorted({s.group for s in samples})
    row = {name: k for k, name in enumerate(groups)}
    n_classes = len(next(iter(class_px.values()))) if class_px else 0
    brought = np.zeros((len(groups), 1 + n_classes))
    for sample in samples:
        brought[row[sample.group]] += (1, *(class_px[sample.sample] if class_px else ()))
    occurring = brought[:, brought.any(axis=0)]
    weights = occurring / occurring.sum(axis=0)
    weights[:, 0] *= max(1.0, weights.shape[1] - 1) ** 0.5
    return groups, brought[:, 0].astype(np.int64), weights


def without_groups_of(samples: Sequence[Sample], test: str, within: Sequence[str] = (TRAIN, VAL)) -> tuple[Sample, ...]:
    """Leave out the samples of ``within`` whose group (patient, slide) occurs in the split ``test``.

    Raises
    ------
    ConfigError
        If ``test`` is one of ``within``.
    DataError
        If ``test`` has no sample, or nothing to train on remains.
    """
    if test in within:
        raise ConfigError(f"the split {test!r} cannot be kept apart from itself", "Name the split that is tested.")
    tested = {s.group for s in samples if s.split == test}
    if not tested:
        raise _no_sample(samples, test)
    kept = tuple(s for s in samples if s.split not in within or s.group not in tested)
    if not any(s.split in within for s in kept):
        raise DataError(
            f"every group of {', '.join(within)} occurs in {test} too", "Split the data by group from the start."
        )
    return kept


def _no_sample(samples: Sequence[Sample], split: str) -> DataError:
    known = ", ".join(sorted({s.split for s in samples}))
    return DataError(f"no sample of the split {split!r}", f"The splits are: {known}.")


def count_class_px(data: PreparedData, samples: Sequence[Sample]) -> dict[str, NDArray[np.int64]]:
    """Count the pixels of each class ``(n_classes,)`` in every sample; reads all label images."""
    n = len(data.info.classes)
    return {s.sample: np.bincount(data.read(s)[1].ravel(), minlength=n + 1)[1:] for s in samples}
