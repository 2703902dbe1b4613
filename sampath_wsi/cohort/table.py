"""The outcome of every slide of a run, read from summaries and records, and the cohort's table.

Nothing here opens a slide or a store: a cohort of hundreds of slides is read in seconds, also while it is being worked
on, and also where half of it failed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sampath_wsi.classes import Byte
from sampath_wsi.files import write_table
from sampath_wsi.options import Config, load_config
from sampath_wsi.results import RunResults, SlideResults
from sampath_wsi.runs.sheet import SheetRow

if TYPE_CHECKING:
    from sampath_wsi.model.card import ModelCard

# Characters that a spreadsheet begins a formula with.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?")
_OWN_COLUMNS = ("tiles", "tissue_mm2", "mpp", "mpp_source", "model", "model_limits", "device", "seconds", "warnings")

State = Literal["failed", "unfinished", "done"]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ClassArea(BaseModel):
    """Area of a class on a slide, its share of the tissue in percent, and the colour that the model gives it."""

    model_config = ConfigDict(frozen=True)

    area_mm2: Amount
    percent: Amount
    color: tuple[Byte, Byte, Byte] = (128, 128, 128)


class Summary(BaseModel):
    """A finished slide: the content of ``summary.json``, which the stage ``report`` writes.

    Parameters
    ----------
    mpp
        Micrometres a level-0 pixel, x and y.
    objects
        How many objects each class has.
    seconds
        How long each stage took.
    version, software
        This program's version, and those of all packages that matter, in one line.
    """

    model_config = ConfigDict(frozen=True)

    slide: str
    file: str
    status: str = "ok"
    mpp: tuple[Amount, Amount]
    mpp_source: str
    model: str
    weights_sha256: str
    tiles: int
    tissue_mm2: Amount
    classes: dict[str, ClassArea]
    objects: dict[str, int] = {}
    warnings: tuple[str, ...] = ()
    device: str | None = None
    seconds: dict[str, Amount] = {}
    version: str = ""
    software: str = ""

    @property
    def total_seconds(self) -> float:
        """Seconds of all stages."""
        return sum(self.seconds.values())

    def percent(self, name: str) -> float:
        """Return a class's share of the tissue; 0 for one that this slide's model does not know."""
        return self.classes[name].percent if name in self.classes else 0.0


@dataclass(frozen=True)
class SlideOutcome:
    """The outcome of a slide of the sample sheet.

    Parameters
    ----------
    extra
        Columns of the sheet that this program does not know.
    state
        ``failed``: a stage said why; ``unfinished``: a stage runs or was killed, or none has begun; ``done``.
    reason
        Why there is no result; empty where there is one.
    summary
        The numbers of a slide that is done, None otherwise.
    dice
        Dice a class against the truth, where the truth is known, and the mean under ``macro average``.
    """

    slide: str
    results: SlideResults
    extra: dict[str, str]
    state: State
    reason: str = ""
    summary: Summary | None = None
    dice: dict[str, float] = field(default_factory=dict)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about the result; empty without a result."""
        return self.summary.warnings if self.summary else ()

    def limits(self, card: ModelCard | None) -> str:
        """Return what the slide's model cannot do, in a sentence; empty if the card is another model's, or none."""
        known = card and self.summary and card.weights_sha256 == self.summary.weights_sha256
        return card.limits if card and known else ""


def read_cohort(
    slides: Iterable[SheetRow], results: Path, config: Mapping[str, object] | None = None
) -> list[SlideOutcome]:
    """Read the outcomes of a sheet's slides: first those without a result, then those with warnings.

    Otherwise they stand in the order of the sheet.

    Steps that neither the sheet nor the configuration asks for (any more) do not count, even where they failed once.

    Parameters
    ----------
    results
        The folder of all results.
    config
        The run's configuration, with or without defaults; None if it is not known: then every step that left a record
        counts.

    Raises
    ------
    ConfigError
        If the configuration has unknown keys or values.
    """
    unwanted = [] if config is None else _not_configured(load_config({**config, "slides": "-"}))
    outcomes = [_outcome(row, RunResults(results).slide(row.slide), unwanted) for row in slides]
    return sorted(outcomes, key=lambda outcome: (get_args(State).index(outcome.state), not outcome.warnings))


def _not_configured(config: Config) -> list[str]:
    """Return patterns (regular expressions) of the steps that are not configured."""
    images = config.images
    steps = {
        "images": images.classes or images.probability or images.entropy,
        "tile-objects": config.vectorize.tiles,
        rf"infer-\d+-of-(?!{config.infer.parts}$)\d+": False,
    }
    return [step for step, wanted in steps.items() if not wanted]


def _outcome(row: SheetRow, results: SlideResults, unwanted: Sequence[str]) -> SlideOutcome:
    def outcome(state: State, reason: str = "", **found: Any) -> SlideOutcome:
        return SlideOutcome(row.slide, results, row.extra, state, reason, **found)

    # Without a truth, also scores may be those of an earlier result.
    ignored = re.compile("|".join(unwanted if row.truth else [*unwanted, "evaluate"]) or "(?!)")
    for path in sorted(path for path in results.records.glob("*.json") if not ignored.fullmatch(path.stem)):
        record = read_json(path)
        if record.get("status") == "failed":
            return outcome("failed", f"{path.stem}: {record.get('error', 'it does not say why')}")
        if record.get("status") == "running":
            return outcome("unfinished", f"{path.stem}: did not finish (killed, or still running)")
    content = read_json(results.summary_file)
    if not content:
        return outcome("unfinished", "no result yet: the run did not reach this slide")
    try:
        summary = Summary.model_validate(content)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        damage = f"{results.summary_file} is damaged ({where}: {error.errors()[0]['msg']})"
        return outcome("failed", f"report: {damage}. Delete it and run again.")
    return outcome("done", summary=summary, dice=read_dice(results.evaluation) if row.truth else {})


def files_of(results: SlideResults) -> dict[str, Path]:
    """Return the files of a slide that people look for, by their names on the page and in `sampath-wsi show`."""
    return {
        "Objects for QuPath (GeoJSON)": results.geojson,
        "Tiles for QuPath (GeoJSON)": results.tile_objects,
        "Probabilities and classes (OME-Zarr)": results.segmentation,
        "Class map (OME-TIFF)": results.image("classes"),
        "Probability (OME-TIFF)": results.image("probability"),
        "Entropy (OME-TIFF)": results.image("entropy"),
        "Overlay (PNG)": results.overlay,
        "Thumbnail (JPEG)": results.thumbnail,
        "Summary (JSON)": results.summary_file,
        "Scores (JSON)": results.evaluation,
    }


def read_dice(evaluation: Path) -> dict[str, float]:
    """Read Dice a class, and their mean as ``macro average``; empty without scores that can be read."""
    scores = read_json(evaluation)
    try:
        found = {name: float(entry["dice"]) for name, entry in scores["classes"].items()}
        return {**found, "macro average": float(scores["macro"]["dice"])}
    except (AttributeError, KeyError, TypeError, ValueError):
        return {}


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; empty if there is none or it cannot be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def write_cohort(outcomes: Sequence[SlideOutcome], out: Path, card: ModelCard | None = None) -> None:
    """Write the cohort's table (tab-separated), a row a slide in the order given; with what its model cannot do."""
    write_table(out, [_cells(outcome, outcome.limits(card)) for outcome in outcomes], delimiter="\t", shown=_as_text)


def _cells(outcome: SlideOutcome, limits: str) -> dict[str, str]:
    """Return a slide's cells by column; a column of the sheet that is called like one of ours takes another name."""
    summary = outcome.summary
    first = {"slide": outcome.slide, "status": "ok" if summary else "failed", "reason": outcome.reason}
    numbers = {} if summary is None else _numbers(summary, limits)
    own = {*first, *numbers, *_OWN_COLUMNS}
    extra = {f"{name} (sheet)" if name in own else name: cell for name, cell in outcome.extra.items()}
    return {**first, **extra, **numbers}


def _numbers(summary: Summary, limits: str) -> dict[str, str]:
    return {
        "tiles": str(summary.tiles),
        "tissue_mm2": f"{summary.tissue_mm2:.4f}",
        **{f"{name} mm2": f"{entry.area_mm2:.4f}" for name, entry in summary.classes.items()},
        **{f"{name} %": f"{entry.percent:.2f}" for name, entry in summary.classes.items()},
        "mpp": f"{summary.mpp[0]:g}",
        "mpp_source": summary.mpp_source,
        "model": summary.model,
        "model_limits": limits,
        "device": summary.device or "",
        "seconds": f"{summary.total_seconds:.1f}",
        "warnings": "; ".join(summary.warnings),
    }


def _as_text(cell: str) -> str:
    """Return a cell that no spreadsheet takes for a formula, for any names of sheets, files and classes."""
    return f"'{cell}" if cell.startswith(_FORMULA) and not _NUMBER.fullmatch(cell) else cell
