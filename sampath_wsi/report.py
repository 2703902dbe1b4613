"""What a person looks at: a slide's overlay picture and summary, and the cohort's table."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sampath_wsi import __version__, ome
from sampath_wsi.classes import TissueClass
from sampath_wsi.files import write_json, written_aside
from sampath_wsi.geometry import Box
from sampath_wsi.overlay import draw_overlay
from sampath_wsi.shards import Shards, read_whole
from sampath_wsi.slide import SlideInfo, SlideReader
from sampath_wsi.store import Provenance, open_store, read_array

_OVERLAY_PX = 1600
# What a spreadsheet begins a formula with.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?")
_OWN_COLUMNS = (
    "slide",
    "status",
    "reason",
    "tiles",
    "tissue_mm2",
    "mpp",
    "mpp_source",
    "model",
    "device",
    "seconds",
    "warnings",
)
_STAGES = ("tile", "infer", "stitch", "vectorize")


def summarize(segmentation_path: Path, records: Path) -> dict[str, Any]:
    """Areas, model and course of a finished slide.

    Parameters
    ----------
    records
        The folder of the stages' run records (see :mod:`sampath_wsi.cli.run`).

    Returns
    -------
    A JSON object; areas in mm^2, shares in percent of the tissue.
    """
    group, made_by = open_store(segmentation_path, "segmentation")
    classes = made_by.options["classes"]
    counts = _label_counts(group, len(classes))
    grid = made_by.grid
    px_mm2 = (grid.mpp_map / 1000) ** 2
    tissue = int(counts[1:].sum())
    runs = {stage: _read_json(records / f"{stage}.json") for stage in _STAGES}
    return {
        "slide": made_by.slide["id"],
        "file": made_by.slide["name"],
        "status": "ok",
        "mpp": [grid.mpp_x, grid.mpp_y],
        "mpp_source": grid.mpp_source,
        "model": made_by.options["model"],
        "weights_sha256": made_by.inputs["weights"],
        "tiles": len(grid.tiles),
        "tissue_mm2": tissue * px_mm2,
        "classes": {
            entry["name"]: {"area_mm2": int(count) * px_mm2, "percent": 100 * int(count) / tissue if tissue else 0.0}
            for entry, count in zip(classes, counts[1:], strict=True)
        },
        "objects": runs["vectorize"].get("objects", {}),
        "warnings": [warning for run in runs.values() for warning in run.get("warnings", [])],
        "device": runs["infer"].get("device"),
        "seconds": {stage: run["seconds"] for stage, run in runs.items() if "seconds" in run},
        "version": __version__,
    }


def overlay(info: SlideInfo, segmentation_path: Path, out: Path) -> None:
    """Write a picture of the slide under its classes, with legend and scale bar.

    Raises
    ------
    SlideError, StoreError
        If slide or store cannot be read.
    """
    group, made_by = open_store(segmentation_path, "segmentation")
    labels, level_um = _labels_to_show(group, made_by)
    scale_x, scale_y, left, top = made_by.grid.map_to_level0_px()
    factor = level_um / made_by.grid.mpp_map
    height, width = labels.shape
    box = Box(left, top, width * factor * scale_x, height * factor * scale_y)
    shown = _OVERLAY_PX / max(width, height)
    size_px = max(1, round(width * shown)), max(1, round(height * shown))
    classes = tuple(TissueClass.model_validate(entry) for entry in made_by.options["classes"])
    counts = _label_counts(group, len(classes))
    picture = draw_overlay(
        SlideReader(info).overview(box, size_px),
        labels,
        classes,
        counts[1:] * (made_by.grid.mpp_map / 1000) ** 2,
        um_per_px=level_um / shown,
        title=made_by.slide["id"],
    )
    with written_aside(out) as aside:
        # Searching for the smallest file took longer than all the rest of the report, for a few per cent.
        picture.save(aside, format="PNG")


@dataclass(frozen=True)
class CohortRow:
    """One slide of the sample sheet and the folder of its results."""

    slide: str
    results: Path
    extra: dict[str, str]


def write_cohort(rows: Sequence[CohortRow], out: Path) -> dict[str, str]:
    """Write the cohort's table (tab-separated): failures with their reason first, then the finished slides.

    Returns
    -------
    The slides that have no result, with the reason of each.
    """
    table = [_cohort_row(row) for row in rows]
    table.sort(key=lambda entry: entry["status"] == "ok")
    columns = list(dict.fromkeys(name for entry in table for name in entry))
    with (
        written_aside(out) as aside,
        open(aside, "w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.DictWriter(file, columns, delimiter="\t", restval="", lineterminator="\n")
        writer.writerow({name: _as_text(name) for name in columns})
        writer.writerows({name: _as_text(value) for name, value in entry.items()} for entry in table)
    return {entry["slide"]: entry["reason"] for entry in table if entry["status"] != "ok"}


def _as_text(cell: Any) -> Any:
    """A cell that no spreadsheet takes for a formula, whatever sheets, files and classes are called."""
    if isinstance(cell, str) and cell.startswith(_FORMULA) and not _NUMBER.fullmatch(cell):
        return f"'{cell}"
    return cell


def _cohort_row(row: CohortRow) -> dict[str, str]:
    summary = _read_json(row.results / "summary.json")
    failure = _failure(row.results / "run")
    if failure or not summary:
        reason = failure or "no result yet: the run did not reach this slide"
        return _with_extra(row, {"slide": row.slide, "status": "failed", "reason": reason})
    numbers: dict[str, Any] = {
        "slide": row.slide,
        "status": "ok",
        "reason": "",
        "tiles": summary["tiles"],
        "tissue_mm2": f"{summary['tissue_mm2']:.4f}",
        **{f"{name} mm2": f"{entry['area_mm2']:.4f}" for name, entry in summary["classes"].items()},
        **{f"{name} %": f"{entry['percent']:.2f}" for name, entry in summary["classes"].items()},
        "mpp": f"{summary['mpp'][0]:g}",
        "mpp_source": summary["mpp_source"],
        "model": summary["model"],
        "device": summary["device"] or "",
        "seconds": f"{sum(summary['seconds'].values()):.1f}",
        "warnings": "; ".join(summary["warnings"]),
    }
    return _with_extra(row, numbers)


def _with_extra(row: CohortRow, own: dict[str, Any]) -> dict[str, Any]:
    """The columns of the sample sheet after the first three; one that is called like one of ours takes another name."""
    extra = {f"{name} (sheet)" if name in own or name in _OWN_COLUMNS else name: row.extra[name] for name in row.extra}
    first = {name: own[name] for name in _OWN_COLUMNS[:3]}
    return {**first, **extra, **own}


def _failure(records: Path) -> str:
    """The reason why a slide's last run failed; empty if it did not."""
    for path in sorted(records.glob("*.json")):
        record = _read_json(path)
        if record.get("status") == "failed":
            return f"{path.stem}: {record['error']}"
        if record.get("status") == "running":
            return f"{path.stem}: did not finish (killed, or still running)"
    return ""


def _label_counts(group: Any, classes: int) -> NDArray[np.int64]:
    """Map pixels a label value, ``(classes + 1,)``."""
    array = read_array(group, f"{ome.LABELS}/0")
    labels, (height, width) = Shards(array), array.shape
    rows = (array.shards or array.chunks)[0]
    counts = np.zeros(classes + 1, np.int64)
    for top in range(0, height, rows):
        block = labels.read(slice(top, min(top + rows, height)), slice(0, width))
        counts += np.bincount(block.ravel(), minlength=classes + 1)
    return counts


def _labels_to_show(group: Any, made_by: Provenance) -> tuple[NDArray[np.uint8], float]:
    """The coarsest level of the label pyramid that still fills the picture, and its resolution in um/px."""
    level = 0
    while (following := group.get(f"{ome.LABELS}/{level + 1}")) is not None and max(following.shape) >= _OVERLAY_PX:
        level += 1
    return read_whole(read_array(group, f"{ome.LABELS}/{level}")), made_by.grid.mpp_map * 2**level


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def write_summary(segmentation_path: Path, records: Path, out: Path) -> None:
    """Write :func:`summarize` as JSON."""
    write_json(out, summarize(segmentation_path, records))
