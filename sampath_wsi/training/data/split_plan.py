"""What the command `prepare split` is asked for, checked and carried out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sampath_wsi.errors import ConfigError
from sampath_wsi.training.data.authors_folds import load_folds, split_as_authors
from sampath_wsi.training.data.prepared import PreparedData, Sample
from sampath_wsi.training.data.splits import TRAIN, VAL, count_class_px, split_groups, without_groups_of


@dataclass(frozen=True)
class SplitPlan:
    """How to split; at most one of ``folds``, ``val_share`` and ``authors``.

    Raises
    ------
    ConfigError
        If that makes no sense.
    """

    folds: int | None = None
    """Deal whole groups to so many folds."""
    fold: int = 0
    """The fold that validates."""
    val_share: float | None = None
    """Deal about this share of the samples to validation, in whole groups."""
    authors: str | None = None
    """The authors' folds: see :func:`sampath_wsi.training.data.authors_folds.load_folds`."""
    within: Sequence[str] = ()
    """The splits to deal anew; ``train`` if empty."""
    disjoint_from: str | None = None
    """First leave out samples whose group occurs in this split."""
    seed: int = 0

    def __post_init__(self) -> None:
        ways = sum(way is not None for way in (self.folds, self.val_share, self.authors))
        if ways > 1:
            raise ConfigError("--folds, --val-share and --authors exclude each other", "Give one of them.")
        if not ways and self.disjoint_from is None:
            raise ConfigError("there is nothing to do", "Give --folds, --val-share, --authors or --disjoint-from.")
        if self.authors is not None and self.within:
            raise ConfigError("the authors' folds name every split themselves", "Leave out --within.")
        if self.folds is not None and not 0 <= self.fold < self.folds:
            raise ConfigError(f"of {self.folds} folds none has the number {self.fold}", "Count folds from 0.")
        if self.val_share is not None and not 0 < self.val_share < 1:
            raise ConfigError(f"--val-share {self.val_share} is no share", "Give a number between 0 and 1.")


def make_splits(data: PreparedData, plan: SplitPlan) -> tuple[Sample, ...]:
    """Carry out a plan: the samples that remain, in their new splits.

    Raises
    ------
    ConfigError, DataError
        If the data do not allow it; see :mod:`sampath_wsi.training.data.splits` and
        :mod:`sampath_wsi.training.data.authors_folds`.
    """
    samples, dealt = data.samples, tuple(plan.within) or (TRAIN,)
    if plan.authors is not None:
        samples, dealt = split_as_authors(samples, load_folds(plan.authors), plan.fold), (TRAIN, VAL)
    if plan.disjoint_from is not None:
        samples = without_groups_of(samples, plan.disjoint_from, dealt)
    if plan.folds is not None:
        shares, val_part = (1.0,) * plan.folds, plan.fold
    elif plan.val_share is not None:
        shares, val_part = (1 - plan.val_share, plan.val_share), 1
    else:
        return samples
    class_px = count_class_px(data, [s for s in samples if s.split in dealt])
    return split_groups(samples, shares, val_part, within=dealt, seed=plan.seed, class_px=class_px)
