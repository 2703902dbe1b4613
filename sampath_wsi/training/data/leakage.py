"""Does what was trained on come back in validation or testing? Reports everything that two splits have in common.

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
from typing import Any, Literal

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

_Pair = tuple[Sequence[Sample], Sequence[Sample]]


@dataclass(frozen=True)
class Leak:
    """One kind of thing that two splits have in common."""

    kind: Kind
    splits: tuple[str, str]
    count: int
    """How many groups, fields, pairs of tiles or images they share."""
    samples: tuple[int, int]
    """How many samples of either split that concerns."""
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
    """What was compared and what was found."""

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
        """All of it in one line."""
        if self.leaks:
            return f"LEAKAGE: {'; '.join(map(str, self.leaks))}"
        looked = "groups, fields, overlapping tiles" + (", identical images" if self.images_compared else "")
        return f"no leakage between {', '.join(self.samples)} (looked for: {looked})"

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values, for files."""
        plain: dict[str, Any] = TypeAdapter(LeakageReport).dump_python(self, mode="json")
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
    leaks: list[Leak | None] = []
    for splits in combinations(samples_by_split, 2):
        pair = (samples_by_split[splits[0]], samples_by_split[splits[1]])
        leaks += [
            _shared("group", splits, pair, lambda s: s.group),
            _shared("field", splits, pair, lambda s: s.field),
            _overlapping(splits, pair, sizes_px),
            _shared("image", splits, pair, lambda s: (digests or {}).get(s.sample)),
        ]
    counts = {name: len(samples) for name, samples in samples_by_split.items()}
    return LeakageReport(counts, digests is not None, tuple(leak for leak in leaks if leak is not None))


def _shared(kind: Kind, splits: tuple[str, str], pair: _Pair, key: Callable[[Sample], str | None]) -> Leak | None:
    """Find what has the same key on both sides."""
    first, second = _by_key(pair[0], key), _by_key(pair[1], key)
    shared = sorted(first.keys() & second.keys(), key=lambda value: (len(value), value))
    if not shared:
        return None
    named = shared[:_EXAMPLES]
    if kind == "image":
        named = [f"{first[value][0].sample} = {second[value][0].sample}" for value in named]
    touched = sum(len(first[value]) for value in shared), sum(len(second[value]) for value in shared)
    return Leak(kind, splits, len(shared), touched, tuple(named))


def _by_key(samples: Sequence[Sample], key: Callable[[Sample], str | None]) -> dict[str, list[Sample]]:
    found: defaultdict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        if (value := key(sample)) is not None:
            found[value].append(sample)
    return found


def _overlapping(splits: tuple[str, str], pair: _Pair, sizes_px: Mapping[str, tuple[int, int]]) -> Leak | None:
    """Find pairs of tiles of one field that have pixels in common."""
    first, second = _by_key(pair[0], lambda s: s.field), _by_key(pair[1], lambda s: s.field)
    count, touched, examples = 0, (set[str](), set[str]()), list[str]()
    for field in sorted(first.keys() & second.keys()):
        others = second[field]
        x1, y1, x2, y2 = np.array([_box(s, sizes_px) for s in others]).T
        for sample in first[field]:
            left, top, right, bottom = _box(sample, sizes_px)
            width = np.minimum(x2, right) - np.maximum(x1, left)
            height = np.minimum(y2, bottom) - np.maximum(y1, top)
            hits = np.flatnonzero((width > 0) & (height > 0))
            count += len(hits)
            if len(hits):
                touched[0].add(sample.sample)
                touched[1].update(others[k].sample for k in hits)
            for k in hits[: max(0, _EXAMPLES - len(examples))]:
                examples.append(f"{sample.sample} & {others[k].sample}: {width[k]} x {height[k]} px")
    if not count:
        return None
    return Leak("pixels", splits, count, (len(touched[0]), len(touched[1])), tuple(examples))


def _box(sample: Sample, sizes_px: Mapping[str, tuple[int, int]]) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of a sample in its field."""
    width, height = sizes_px[sample.sample]
    return sample.x_px, sample.y_px, sample.x_px + width, sample.y_px + height


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
