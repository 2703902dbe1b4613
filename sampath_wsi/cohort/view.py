"""What the page shows, gathered from what the stages left: no HTML here, and nothing read but small files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sampath_wsi.cohort.charts import Segment, Spread, Total, order_by_share, spreads, stack, totals
from sampath_wsi.cohort.pictures import Picture, embed_all
from sampath_wsi.cohort.table import SlideOutcome, Summary
from sampath_wsi.model.card import ModelCard

_FILES = {
    "segmentation.geojson.gz": "Objects for QuPath (GeoJSON)",
    "tiles.geojson.gz": "Tiles for QuPath (GeoJSON)",
    "segmentation.ome.zarr": "Probabilities and classes (OME-Zarr)",
    "classes.ome.tif": "Class map (OME-TIFF)",
    "probability.ome.tif": "Probability (OME-TIFF)",
    "entropy.ome.tif": "Entropy (OME-TIFF)",
    "overlay.png": "Overlay (PNG)",
    "thumbnail.jpg": "Thumbnail (JPEG)",
    "summary.json": "Summary (JSON)",
    "evaluation.json": "Scores (JSON)",
}
_STATES = {
    "failed": ("✕", "Failed"),
    "unfinished": ("…", "Unfinished"),
    "empty": ("○", "No tissue"),
    "warned": ("!", "Warnings"),
    "done": ("✓", "Done"),
}
# Of the patterns in the template: classes beyond them repeat these, enlarged.
_PATTERNS = 8
# With fewer, quartiles say nothing.
_LEAST_SPREAD = 5
# From here on a bar a slide would make the plot too tall: then the slides are columns without names.
_MOST_BARS = 30


@dataclass(frozen=True)
class ClassView:
    """A class, its colour, and the pattern that tells it from others without colour."""

    index: int
    name: str
    color: str
    ink: str
    pattern: int
    scale: float


@dataclass(frozen=True)
class SlideView:
    """A slide on the page. ``areas`` has (class index, mm^2, percent); ``files`` and ``logs`` have (text, link)."""

    number: int
    slide: str
    state: str
    symbol: str
    label: str
    rank: int
    reason: str
    extra: dict[str, str]
    summary: Summary | None
    areas: tuple[tuple[int, float, float], ...]
    segments: tuple[Segment, ...]
    seconds: float | None
    dice: dict[str, float]
    picture: Picture | None
    files: tuple[tuple[str, str], ...]
    logs: tuple[tuple[str, str], ...]

    @property
    def percents(self) -> dict[int, float]:
        """Share of the tissue by class index."""
        return {index: percent for index, _, percent in self.areas}


@dataclass(frozen=True)
class PageView:
    """Everything on the page; ``columns`` are the slides by the share of the largest class, where bars are too many."""

    slides: tuple[SlideView, ...]
    classes: tuple[ClassView, ...]
    counts: dict[str, int]
    extra: tuple[str, ...]
    totals: tuple[Total, ...]
    spreads: tuple[Spread, ...]
    columns: tuple[SlideView, ...]
    bars: tuple[SlideView, ...]
    card: ModelCard | None
    models: tuple[tuple[str, str, int], ...]
    software: tuple[tuple[str, int], ...]
    config: dict[str, Any]
    tissue_mm2: float
    seconds: float
    table: str

    @property
    def scored(self) -> bool:
        """Whether the truth of any slide is known."""
        return any(slide.dice for slide in self.slides)


def gather(
    outcomes: Sequence[SlideOutcome],
    results: Path,
    out: Path,
    *,
    table: Path | None = None,
    card: ModelCard | None = None,
    config: dict[str, Any] | None = None,
) -> PageView:
    """What the page at ``out`` shows of these slides, whose results lie in ``results``; see :func:`write_page`."""
    classes = _classes(outcomes, card)
    place = {entry.name: entry.index for entry in classes}
    pictures = embed_all([outcome.row.results for outcome in outcomes])
    slides = tuple(
        _slide(number, outcome, picture, place, results, out.parent)
        for number, (outcome, picture) in enumerate(zip(outcomes, pictures, strict=True), start=1)
    )
    with_tissue = [slide for slide in slides if slide.segments]
    percents = [slide.percents for slide in with_tissue]
    areas = [{index: mm2 for index, mm2, _ in slide.areas} for slide in with_tissue]
    many = len(with_tissue) > _MOST_BARS
    summaries = [slide.summary for slide in slides if slide.summary is not None]
    return PageView(
        slides=slides,
        classes=classes,
        counts=_counts(slides),
        extra=tuple(dict.fromkeys(name for slide in slides for name in slide.extra)),
        totals=tuple(totals(areas, len(classes))),
        spreads=tuple(spreads(percents, len(classes)) if len(percents) >= _LEAST_SPREAD else ()),
        columns=tuple(with_tissue[position] for position in order_by_share(percents)) if many else (),
        bars=() if many else tuple(with_tissue),
        card=card,
        models=tuple(
            (*model, count) for model, count in Counter((s.model, s.weights_sha256) for s in summaries).most_common()
        ),
        software=tuple(Counter(s.software or f"sampath-wsi {s.version}" for s in summaries).most_common()),
        config=config or {},
        tissue_mm2=sum(summary.tissue_mm2 for summary in summaries),
        seconds=sum(slide.seconds or 0.0 for slide in slides),
        table=_link(table, out.parent) if table is not None else "",
    )


def _classes(outcomes: Sequence[SlideOutcome], card: ModelCard | None) -> tuple[ClassView, ...]:
    """The classes of the model and of all slides; slides may come from different models."""
    colours = {entry.name: entry.color for entry in card.classes} if card else {}
    for outcome in outcomes:
        for name, entry in (outcome.summary.classes if outcome.summary else {}).items():
            colours.setdefault(name, entry.color)
    found = []
    for index, (name, (red, green, blue)) in enumerate(colours.items()):
        ink = "#000" if 0.299 * red + 0.587 * green + 0.114 * blue > 110 else "#fff"
        scale = 1 + 0.75 * (index // _PATTERNS)
        found.append(ClassView(index, name, f"rgb({red},{green},{blue})", ink, index % _PATTERNS, scale))
    return tuple(found)


def _slide(
    number: int, outcome: SlideOutcome, picture: Picture | None, place: dict[str, int], results: Path, start: Path
) -> SlideView:
    row, summary = outcome.row, outcome.summary
    state = outcome.state if summary is None else _state(summary)
    areas = [(place[name], e.area_mm2, e.percent) for name, e in (summary.classes if summary else {}).items()]
    here = {entry.name for entry in os.scandir(row.results)} if row.results.is_dir() else set()
    logs = sorted((results / "logs" / row.slide).glob("*.log"))
    return SlideView(
        number=number,
        slide=row.slide,
        state=state,
        symbol=_STATES[state][0],
        label=_STATES[state][1],
        rank=list(_STATES).index(state),
        reason=outcome.reason,
        extra=row.extra,
        summary=summary,
        areas=tuple(areas),
        segments=tuple(stack({index: percent for index, _, percent in areas})),
        seconds=sum(summary.seconds.values()) if summary else None,
        dice=outcome.dice,
        picture=picture,
        files=tuple((text, _link(row.results / name, start)) for name, text in _FILES.items() if name in here),
        logs=tuple((path.stem, _link(path, start)) for path in logs),
    )


def _state(summary: Summary) -> str:
    if summary.tissue_mm2 == 0:
        return "empty"
    return "warned" if summary.warnings else "done"


def _counts(slides: Sequence[SlideView]) -> dict[str, int]:
    """How many slides there are of each kind; one may be of several."""
    return {
        "finished": sum(slide.summary is not None for slide in slides),
        "failed": sum(slide.state == "failed" for slide in slides),
        "unfinished": sum(slide.state == "unfinished" for slide in slides),
        "empty": sum(slide.state == "empty" for slide in slides),
        "warned": sum(bool(slide.summary and slide.summary.warnings) for slide in slides),
    }


def _link(target: Path, start: Path) -> str:
    """A relative link; file names that are no UTF-8 as their bytes."""
    return quote(os.fsencode(os.path.relpath(target, start)))
