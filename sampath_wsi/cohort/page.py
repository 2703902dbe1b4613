"""The cohort's page: one HTML file that needs nothing else to be read.

Lengths in plots are in percent of the width, so that texts keep their size on every screen. The page's security policy
admits its own style and script by their hashes, and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import os
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from sampath_wsi import __version__
from sampath_wsi.cohort.pictures import Picture, embed_all
from sampath_wsi.cohort.table import SlideOutcome, Summary, files_of
from sampath_wsi.files import written_aside
from sampath_wsi.model.card import ModelCard
from sampath_wsi.progress import duration
from sampath_wsi.results import RunResults

# Number of patterns in the template: classes beyond them repeat these, enlarged.
_PATTERNS = 8
# Of fewer slides quartiles say nothing.
_LEAST_SPREAD = 5
# More slides are columns without names: a bar for each would make the plot too tall.
_MOST_BARS = 30
# A shorter part of a bar, in percent, has no room for its number.
_ROOM_PERCENT = 9.0


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
class Segment:
    """A class's part of a bar: where it begins and how long it is (percent of the bar), and the number on it."""

    of: ClassView
    start: float
    length: float
    text: str


@dataclass(frozen=True)
class Total:
    """Area of a class on all slides, its share of all tissue, and the length of its bar in percent of the longest."""

    of: ClassView
    mm2: float
    percent: float
    length: float


@dataclass(frozen=True)
class Spread:
    """Distribution over the slides of a class's share, in percent of a slide's tissue."""

    of: ClassView
    least: float
    lower_quartile: float
    median: float
    upper_quartile: float
    most: float


@dataclass(frozen=True)
class SlideView:
    """A slide on the page.

    Parameters
    ----------
    state
        That of the outcome; slides that are done may be ``empty`` (no tissue) or ``warned`` instead.
    files, logs
        Text and link of each.
    """

    number: int
    outcome: SlideOutcome
    state: str
    segments: list[Segment]
    picture: Picture | None
    files: list[tuple[str, str]]
    logs: list[tuple[str, str]]


def write_page(
    outcomes: Sequence[SlideOutcome],
    results: Path,
    out: Path,
    *,
    table: Path | None = None,
    card: ModelCard | None = None,
    config: Mapping[str, object] | None = None,
) -> None:
    """Write the cohort's page: table, plots, a picture of every slide with its numbers, and the provenance.

    It is one file without any request of the network; links lead to the results by their relative paths. The same
    results give the same bytes.

    Parameters
    ----------
    outcomes
        As :func:`sampath_wsi.cohort.table.read_cohort` returns them; slides stand on the page in that order.
    results
        The folder of all results, with ``slides/`` and ``logs/``.
    table
        The cohort's table, to link to.
    card, config
        The model's card and the configuration of the run, to be shown.
    """
    classes = _classes(outcomes, card)
    pictures = embed_all([outcome.results for outcome in outcomes])
    slides = [
        _slide(number, outcome, picture, classes, RunResults(results).logs / outcome.slide, out.parent)
        for number, (outcome, picture) in enumerate(zip(outcomes, pictures, strict=True), start=1)
    ]
    summaries = [outcome.summary for outcome in outcomes if outcome.summary is not None]
    models = Counter((summary.model, summary.weights_sha256) for summary in summaries)
    html = _render(
        slides=slides,
        classes=classes,
        counts=_counts(slides),
        extra=list(dict.fromkeys(name for outcome in outcomes for name in outcome.extra)),
        scored=any(outcome.dice for outcome in outcomes),
        **_plots([slide for slide in slides if slide.segments], classes),
        card=card,
        models=[(*model, count) for model, count in models.most_common()],
        software=Counter(s.software or f"sampath-wsi {s.version}" for s in summaries).most_common(),
        config=config or {},
        tissue_mm2=sum(summary.tissue_mm2 for summary in summaries),
        seconds=sum(summary.total_seconds for summary in summaries),
        table=_link(table, out.parent) if table is not None else "",
    )
    with written_aside(out) as aside:
        # File names that are no UTF-8 hold lone surrogates.
        aside.write_text(html, encoding="utf-8", errors="backslashreplace")


def _classes(outcomes: Sequence[SlideOutcome], card: ModelCard | None) -> dict[str, ClassView]:
    """Return by name the classes of the model and of all slides, which may come from different models."""
    colours = {entry.name: entry.color for entry in card.classes} if card else {}
    for outcome in outcomes:
        for name, area in (outcome.summary.classes if outcome.summary else {}).items():
            colours.setdefault(name, area.color)
    found = {}
    for index, (name, (red, green, blue)) in enumerate(colours.items()):
        ink = "#000" if 0.299 * red + 0.587 * green + 0.114 * blue > 110 else "#fff"
        scale = 1 + 0.75 * (index // _PATTERNS)
        found[name] = ClassView(index, name, f"rgb({red},{green},{blue})", ink, index % _PATTERNS, scale)
    return found


def _slide(
    number: int,
    outcome: SlideOutcome,
    picture: Picture | None,
    classes: Mapping[str, ClassView],
    logs: Path,
    start: Path,
) -> SlideView:
    """Return a slide with its bar and its links, which begin in the folder ``start``."""
    summary, files = outcome.summary, files_of(outcome.results)
    return SlideView(
        number=number,
        outcome=outcome,
        state=_state(summary) if summary else outcome.state,
        segments=_segments(summary, classes) if summary else [],
        picture=picture,
        files=[(text, _link(path, start)) for text, path in files.items() if path.exists()],
        logs=[(path.stem, _link(path, start)) for path in sorted(logs.glob("*.log"))],
    )


def _state(summary: Summary) -> str:
    if summary.tissue_mm2 == 0:
        return "empty"
    return "warned" if summary.warnings else "done"


def _counts(slides: Sequence[SlideView]) -> Counter[str]:
    """Return how many slides are in each state; one without tissue may have warnings too."""
    counts = Counter(slide.state for slide in slides)
    summaries = [slide.outcome.summary for slide in slides if slide.outcome.summary]
    return counts | Counter(finished=len(summaries), warned=sum(bool(summary.warnings) for summary in summaries))


def _link(target: Path, start: Path) -> str:
    """Return a relative link; file names that are no UTF-8 as their bytes."""
    return quote(os.fsencode(os.path.relpath(target, start)))


def _segments(summary: Summary, classes: Mapping[str, ClassView]) -> list[Segment]:
    """Return the parts of one slide's bar."""
    segments, start = [], 0.0
    for name, area in summary.classes.items():
        if area.percent > 0:
            text = f"{area.percent:.0f} %" if area.percent >= _ROOM_PERCENT else ""
            segments.append(Segment(classes[name], round(start, 3), round(area.percent, 3), text))
            start += area.percent
    return segments


def _plots(slides: Sequence[SlideView], classes: Mapping[str, ClassView]) -> dict[str, object]:
    """Return the plots of the slides with tissue.

    ``totals`` and ``spreads`` have an entry a class; ``bars`` are the slides, or ``columns`` in falling order of the
    share of the largest class, where bars are too many.
    """
    summaries = [slide.outcome.summary for slide in slides if slide.outcome.summary]
    shares = {name: [summary.percent(name) for summary in summaries] for name in classes}
    areas = {name: sum(s.classes[name].area_mm2 for s in summaries if name in s.classes) for name in classes}
    whole, longest = sum(areas.values()) or 1.0, max(areas.values(), default=0.0) or 1.0
    spreads = []
    for name, share in shares.items() if len(slides) >= _LEAST_SPREAD else ():
        lower, median, upper = statistics.quantiles(share, n=4, method="inclusive")
        spreads.append(Spread(classes[name], min(share), lower, median, upper, max(share)))
    many = len(slides) > _MOST_BARS
    largest = shares[max(shares, key=lambda name: sum(shares[name]))] if shares else []
    by_share = sorted(range(len(slides)), key=lambda k: -largest[k])
    return {
        "totals": [
            Total(classes[name], mm2, 100 * mm2 / whole, round(100 * mm2 / longest, 3)) for name, mm2 in areas.items()
        ],
        "spreads": spreads,
        "columns": [slides[k] for k in by_share] if many else [],
        "bars": [] if many else slides,
    }


def _render(**view: object) -> str:
    """Fill in the template; everything that ``view`` holds is escaped."""
    environment = Environment(
        loader=PackageLoader("sampath_wsi.cohort"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(mm2=_mm2, yaml=_as_yaml, duration=duration)
    templates = files("sampath_wsi.cohort") / "templates"
    style, script = ((templates / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return environment.get_template("page.html.j2").render(
        view=view,
        version=__version__,
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


def _printable(value: object) -> object:
    """Spell out control and direction characters in names of files and slides, but not in text that is marked safe."""
    if not isinstance(value, str) or value.isprintable() or hasattr(value, "__html__"):
        return value
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in value)


def _mm2(value: float) -> str:
    return f"{value:.3f}" if value < 10 else f"{value:,.1f}"


def _as_yaml(value: object) -> str:
    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=110)).rstrip()


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
