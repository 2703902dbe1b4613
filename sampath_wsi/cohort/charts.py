"""The plots' geometry: lengths in percent of the width, so that texts keep their size on every screen."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# A part of a bar that is narrower has no room for its number.
_ROOM_PERCENT = 9.0


@dataclass(frozen=True)
class Segment:
    """A class's part of a bar: where it begins, how long it is (percent of the bar), and the number written on it."""

    index: int
    start: float
    length: float
    text: str


@dataclass(frozen=True)
class Total:
    """Area of a class on all slides, its share of all tissue, and the length of its bar in percent of the longest."""

    index: int
    mm2: float
    percent: float
    length: float


@dataclass(frozen=True)
class Spread:
    """How the share of a class, in percent of a slide's tissue, is distributed over the slides."""

    index: int
    least: float
    lower_quartile: float
    median: float
    upper_quartile: float
    most: float


def stack(percents: Mapping[int, float]) -> list[Segment]:
    """The parts of one slide's bar, by class index; shares in percent."""
    segments, start = [], 0.0
    for index, percent in percents.items():
        if percent > 0:
            text = f"{percent:.0f} %" if percent >= _ROOM_PERCENT else ""
            segments.append(Segment(index, round(start, 3), round(percent, 3), text))
            start += percent
    return segments


def totals(areas_mm2: Sequence[Mapping[int, float]], classes: int) -> list[Total]:
    """The area of each class over all slides, of which ``areas_mm2`` gives the area by class index."""
    sums = [sum(area.get(index, 0.0) for area in areas_mm2) for index in range(classes)]
    whole, longest = sum(sums) or 1.0, max(sums, default=0.0) or 1.0
    return [Total(index, mm2, 100 * mm2 / whole, round(100 * mm2 / longest, 3)) for index, mm2 in enumerate(sums)]


def spreads(percents: Sequence[Mapping[int, float]], classes: int) -> list[Spread]:
    """The distribution of every class's share over the slides; nothing for fewer than two slides."""
    if len(percents) < 2:
        return []
    found = []
    for index in range(classes):
        values = sorted(percent.get(index, 0.0) for percent in percents)
        lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
        found.append(Spread(index, values[0], lower, median, upper, values[-1]))
    return found


def order_by_share(percents: Sequence[Mapping[int, float]]) -> list[int]:
    """Positions of the slides, ordered by the share of the class that has the largest share of all."""
    sums: dict[int, float] = {}
    for slide in percents:
        for index, percent in slide.items():
            sums[index] = sums.get(index, 0.0) + percent
    first = max(sums, key=lambda index: sums[index], default=0)
    return sorted(range(len(percents)), key=lambda position: -percents[position].get(first, 0.0))
