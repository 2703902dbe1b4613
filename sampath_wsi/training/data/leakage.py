"""Leakage: data that two splits have in common.

Four kinds of leakage are looked for between any two splits:

``group``
    The same patient or slide.
``field``
    The same region, of which different tiles were cut.
``pixels``
    Tiles of one field that overlap: the same pixels.
``image``
    The same decoded pixels under two names. Needs every image to be read, so it is done on request. Images of a
    single colour are left out: they tell nothing.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np
from pydantic import TypeAdapter

from sampath_wsi.progress import Progress, stepper
from sampath_wsi.training.data.prepared import TRAIN, VAL, PreparedData, Sample

Kind = Literal["group", "field", "pixels", "image"]
_WHAT: dict[Kind, tuple[str, str]] = {
    "group": ("group", "groups"),
    "field": ("field", "fields"),
    "pixels": ("pair of overlapping tiles", "pairs of overlapping tiles"),
    "image": ("image under two names", "images under two names"),
}
_EXAMPLES = 3


@dataclass(frozen=True)
class Leak:
    """One kind of thing that two splits have in common."""

    kind: Kind
    splits: tuple[str, str]
    count: int
    """Number of groups, fields, pairs of tiles or images that they share."""
    samples: tuple[int, int]
    """Number of samples of either split that are affected."""
    examples: tuple[str, ...]

    def __str__(self) -> str:
        shown = ", ".join(self.examples) + (", ..." if self.count > len(self.examples) else "")
        what = _WHAT[self.kind][self.count > 1]
        return (
            f"{self.splits[0]} and {self.splits[1]} share {self.count} {what} ({shown}): "
            f"{self.samples[0]} and {self.samples[1]} samples"
        )


@dataclass(frozen=True)
class LeakageReport:
    """The splits that were compared, and the leaks between them."""

    samples: Mapping[str, int]
    """Samples of each split."""
    images_compared: bool
    leaks: tuple[Leak, ...]

    @property
    def severity(self) -> Literal["none", "leak"]:
        """``leak`` if anything was found."""
        return "leak" if self.leaks else "none"

    @property
    def summary(self) -> str:
        """The report in one line."""
        if self.leaks:
            return f"LEAKAGE: {'; '.join(map(str, self.leaks))}"
        looked = "groups, fields, overlapping tiles" + (", identical images" if self.images_compared else "")
        return f"no leakage between {', '.join(self.samples)} (looked for: {looked})"

    def to_json(self) -> dict[str, object]:
        """Return it as plain values, for files."""
        plain: dict[str, object] = TypeAdapter(LeakageReport).dump_python(self, mode="json")
        return {"severity": self.severity, "summary": self.summary, **plain}


def leakage_of(
    data: PreparedData,
    splits: Sequence[str] | None = None,
    *,
    hash_pixels: bool = False,
    progress: Progress | None = None,
) -> LeakageReport:
    """Report leakage between the splits of prepared data.

    Parameters
    ----------
    data
        The data, with the splits that are used.
    splits
        Which splits to compare; by default all.
    hash_pixels
        Also look for the same image under two names: reads every image.

    Raises
    ------
    DataError
        If a split has no sample, or an image cannot be read.
    """
    found = sorted({s.split for s in data.samples}, key=lambda name: (name != TRAIN, name != VAL, name))
    by_split = {name: data.split(name) for name in (found if splits is None else splits)}
    digests = dict(_digests(data, [s for side in by_split.values() for s in side], progress)) if hash_pixels else None
    return find_leakage(by_split, data.sizes_px, digests)


def find_leakage(
    samples_by_split: Mapping[str, Sequence[Sample]],
    sizes_px: Mapping[str, tuple[int, int]],
    digests: Mapping[str, str] | None = None,
) -> LeakageReport:
    """Compare every two splits.

    Parameters
    ----------
    samples_by_split
        The samples of each split.
    sizes_px
        Width and height by name of the sample; only those are asked for whose field is in two splits.
    digests
        A digest of the decoded pixels by name of the sample; those without one are not compared.
    """
    leaks = []
    for splits in combinations(samples_by_split, 2):
        first, second = (samples_by_split[name] for name in splits)
        fields = _shared(first, second, lambda s: s.field)
        images = _shared(first, second, lambda s: (digests or {}).get(s.sample))
        found: dict[Kind, list[_Common]] = {
            "group": _shared(first, second, lambda s: s.group),
            "field": fields,
            "pixels": [pair for field in fields for pair in _overlapping(field, sizes_px)],
            "image": [_Common(f"{i.first[0].sample} = {i.second[0].sample}", i.first, i.second) for i in images],
        }
        for kind, common in found.items():
            if common:
                touched = len({s for c in common for s in c.first}), len({s for c in common for s in c.second})
                examples = tuple(c.example for c in common[:_EXAMPLES])
                leaks.append(Leak(kind, splits, len(common), touched, examples))
    counts = {name: len(samples) for name, samples in samples_by_split.items()}
    return LeakageReport(counts, digests is not None, tuple(leaks))


class _Common(NamedTuple):
    """One thing that two splits have in common, and the samples of either that show it."""

    example: str
    first: list[Sample]
    second: list[Sample]


def _shared(first: Sequence[Sample], second: Sequence[Sample], key: Callable[[Sample], str | None]) -> list[_Common]:
    """Find the keys that occur on both sides."""
    sides = defaultdict[str, list[Sample]](list), defaultdict[str, list[Sample]](list)
    for side, samples in zip(sides, (first, second), strict=True):
        for sample in samples:
            if (value := key(sample)) is not None:
                side[value].append(sample)
    both = sorted(sides[0].keys() & sides[1].keys(), key=lambda value: (len(value), value))
    return [_Common(value, sides[0][value], sides[1][value]) for value in both]


def _overlapping(field: _Common, sizes_px: Mapping[str, tuple[int, int]]) -> Iterator[_Common]:
    """Find the pairs of tiles of one field that have pixels in common."""
    corners = np.array([(s.x_px, s.y_px) for s in field.second])
    sizes = np.array([sizes_px[s.sample] for s in field.second])
    for sample in field.first:
        corner = np.array([sample.x_px, sample.y_px])
        ends = np.minimum(corners + sizes, corner + sizes_px[sample.sample])
        common = ends - np.maximum(corners, corner)
        for k in np.flatnonzero((common > 0).all(axis=1)):
            other, (width, height) = field.second[k], common[k]
            yield _Common(f"{sample.sample} & {other.sample}: {width} x {height} px", [sample], [other])


def _digests(data: PreparedData, samples: Sequence[Sample], progress: Progress | None) -> Iterator[tuple[str, str]]:
    """Yield a digest of size and RGB pixels for every sample, save those of a single colour."""
    step = stepper(progress, len(samples), "images")
    for sample in samples:
        step()
        pixels, _ = data.read(sample)
        if (pixels != pixels[:1, :1]).any():
            digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
            digest.update(pixels.tobytes())
            yield sample.sample, digest.hexdigest()
