"""What a person looks at of one slide: its pictures and its summary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sampath_wsi import __version__
from sampath_wsi.classes import TissueClass
from sampath_wsi.cohort.table import read_json
from sampath_wsi.files import write_json, written_aside
from sampath_wsi.geometry import Box
from sampath_wsi.machine.facts import describe_versions
from sampath_wsi.slides import SlideInfo, SlideReader
from sampath_wsi.stages.report.overlay import classes_of, draw_overlay, label_picture
from sampath_wsi.stores import ome
from sampath_wsi.stores.shards import Shards, read_whole
from sampath_wsi.stores.store import Provenance, open_store, read_array

_OVERLAY_PX = 1600
_THUMBNAIL_PX = 960
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
    runs = {stage: read_json(records / f"{stage}.json") for stage in _STAGES}
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
            entry["name"]: {
                "area_mm2": int(count) * px_mm2,
                "percent": 100 * int(count) / tissue if tissue else 0.0,
                "color": entry["color"],
            }
            for entry, count in zip(classes, counts[1:], strict=True)
        },
        "objects": runs["vectorize"].get("objects", {}),
        "warnings": [warning for run in runs.values() for warning in run.get("warnings", [])],
        "device": runs["infer"].get("device"),
        "seconds": {stage: run["seconds"] for stage, run in runs.items() if "seconds" in run},
        "version": __version__,
        "software": describe_versions(),
    }


def overlay(info: SlideInfo, segmentation_path: Path, out: Path, thumbnail: Path | None = None) -> None:
    """Write a picture of the slide under its classes, with legend and scale bar.

    Parameters
    ----------
    thumbnail
        Where a small picture of the slide alone goes (JPEG). Its classes go beside it, see
        :func:`sampath_wsi.stages.report.overlay.classes_of`.

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
    areas_mm2 = _label_counts(group, len(classes))[1:] * (made_by.grid.mpp_map / 1000) ** 2
    rgb = SlideReader(info).overview(box, size_px)
    um_per_px = level_um / shown
    picture = draw_overlay(rgb, labels, classes, areas_mm2, um_per_px=um_per_px, title=made_by.slide["id"])
    with written_aside(out) as aside:
        # Searching for the smallest file took longer than all the rest of the report, for a few per cent.
        picture.save(aside, format="PNG")
    if thumbnail is not None:
        _write_thumbnail(thumbnail, rgb, labels, classes, um_per_px)


def _write_thumbnail(
    out: Path, rgb: NDArray[np.uint8], labels: NDArray[np.uint8], classes: tuple[TissueClass, ...], um_per_px: float
) -> None:
    picture = Image.fromarray(rgb)
    picture.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX), Image.Resampling.BOX)
    dpi = 25400 / (um_per_px * rgb.shape[1] / picture.width)
    layer = label_picture(labels, classes, picture.size)
    with written_aside(classes_of(out)) as aside:
        layer.save(aside, format="PNG", dpi=(dpi, dpi))
    with written_aside(out) as aside:
        picture.save(aside, format="JPEG", quality=85, optimize=True)


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


def write_summary(segmentation_path: Path, records: Path, out: Path) -> None:
    """Write :func:`summarize` as JSON."""
    write_json(out, summarize(segmentation_path, records))
