"""Stage 5: the pictures and the summary of a slide.

On the overlay the slide is grey inside the classes: what is light and dark there is tissue, and what has a colour is
the class. Over the pink of H&E pale colours would not be those of the legend.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import zarr
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from sampath_wsi import __version__
from sampath_wsi.classes import TissueClass, colour_table
from sampath_wsi.cohort.table import ClassArea, Summary, read_json
from sampath_wsi.files import write_json, written_aside
from sampath_wsi.geometry import Box
from sampath_wsi.machine.facts import describe_versions
from sampath_wsi.slides import SlideInfo, SlideReader
from sampath_wsi.stages.doubts import doubts_of_classes
from sampath_wsi.stores.provenance import Provenance
from sampath_wsi.stores.pyramid import LABELS
from sampath_wsi.stores.shards import Shards, read_whole
from sampath_wsi.stores.store import open_store, read_array

_STAGES = ("tile", "infer", "stitch", "vectorize")
_OVERLAY_PX = 1600
_THUMBNAIL_PX = 960
_LEGEND_PX = 480
_MARGIN_PX = 24
_OPACITY = 0.40
_NICE_LENGTHS_UM = [n * 10**k for k in range(6) for n in (1, 2, 5)]


def write_summary(segmentation_path: Path, records: Path, out: Path) -> list[str]:
    """Write areas, model and course of a finished slide (JSON, see :class:`sampath_wsi.cohort.table.Summary`).

    Returns the warnings about its classes, which stand in the summary after those of the stages.

    Parameters
    ----------
    records
        The folder of the stages' run records (see :mod:`sampath_wsi.runs.record`).
    """
    group, made_by = open_store(segmentation_path, "segmentation")
    grid, classes = made_by.grid, made_by.classes
    counts = _label_counts(group, len(classes))[1:]
    px_mm2, tissue_px = (grid.mpp_map / 1000) ** 2, int(counts.sum())
    runs = {stage: read_json(records / f"{stage}.json") for stage in _STAGES}
    areas = {
        entry.name: ClassArea(
            area_mm2=count * px_mm2, percent=100 * count / tissue_px if tissue_px else 0.0, color=entry.color
        )
        for entry, count in zip(classes, counts.tolist(), strict=True)
    }
    doubts = doubts_of_classes({name: area.percent for name, area in areas.items()})
    summary = Summary(
        slide=made_by.slide.id,
        file=made_by.slide.name,
        mpp=(grid.mpp_x, grid.mpp_y),
        mpp_source=grid.mpp_source,
        model=made_by.known_model.name,
        weights_sha256=made_by.weights_sha256,
        tiles=len(grid.tiles),
        tissue_mm2=tissue_px * px_mm2,
        classes=areas,
        objects=runs["vectorize"].get("objects", {}),
        warnings=(*(warning for run in runs.values() for warning in run.get("warnings", [])), *doubts),
        device=runs["infer"].get("device"),
        seconds={stage: run["seconds"] for stage, run in runs.items() if "seconds" in run},
        version=__version__,
        software=describe_versions(),
    )
    write_json(out, summary.model_dump(mode="json"))
    return doubts


def write_overlay(info: SlideInfo, segmentation_path: Path, out: Path, thumbnail: Path | None = None) -> None:
    """Write a picture of the slide under its classes, with legend and scale bar (PNG).

    Parameters
    ----------
    thumbnail
        Where a small picture of the slide alone goes (JPEG). Its classes go beside it, see :func:`classes_of`.

    Raises
    ------
    SlideError, StoreError
        If slide or store cannot be read.
    """
    group, made_by = open_store(segmentation_path, "segmentation")
    labels, mpp_labels = _labels_to_show(group, made_by)
    scale_x, scale_y, left, top = made_by.grid.map_to_level0_px()
    factor = mpp_labels / made_by.grid.mpp_map
    height, width = labels.shape
    box = Box(left, top, width * factor * scale_x, height * factor * scale_y)
    shown = _OVERLAY_PX / max(width, height)
    size_px = max(1, round(width * shown)), max(1, round(height * shown))
    classes = made_by.classes
    areas_mm2 = _label_counts(group, len(classes))[1:] * (made_by.grid.mpp_map / 1000) ** 2
    rgb = SlideReader(info).overview(box, size_px)
    mpp = mpp_labels / shown
    picture = draw_overlay(rgb, labels, classes, areas_mm2, mpp=mpp, title=made_by.slide.id)
    with written_aside(out) as aside:
        # Searching for the smallest file took longer than all the rest of the report, for a few per cent.
        picture.save(aside, format="PNG")
    if thumbnail is not None:
        _write_thumbnail(thumbnail, rgb, labels, classes, mpp)


def classes_of(thumbnail: Path) -> Path:
    """Return the path of a thumbnail's classes: a PNG of label values that holds their colours and its resolution."""
    return thumbnail.with_name(f"{thumbnail.stem}-classes.png")


def _write_thumbnail(
    out: Path, rgb: NDArray[np.uint8], labels: NDArray[np.uint8], classes: tuple[TissueClass, ...], mpp: float
) -> None:
    picture = Image.fromarray(rgb)
    picture.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX), Image.Resampling.BOX)
    dpi = 25400 / (mpp * rgb.shape[1] / picture.width)
    layer = label_picture(labels, classes, picture.size)
    with written_aside(classes_of(out)) as aside:
        layer.save(aside, format="PNG", dpi=(dpi, dpi))
    with written_aside(out) as aside:
        picture.save(aside, format="JPEG", quality=85, optimize=True)


def _label_counts(group: zarr.Group, classes: int) -> NDArray[np.int64]:
    """Return the map pixels of each label value, ``(classes + 1,)``."""
    array = read_array(group, f"{LABELS}/0")
    labels, (height, width) = Shards(array), array.shape
    rows = (array.shards or array.chunks)[0]
    counts = np.zeros(classes + 1, np.int64)
    for top in range(0, height, rows):
        block = labels.read(slice(top, min(top + rows, height)), slice(0, width))
        counts += np.bincount(block.ravel(), minlength=classes + 1)
    return counts


def _labels_to_show(group: zarr.Group, made_by: Provenance) -> tuple[NDArray[np.uint8], float]:
    """Return the coarsest level of the label pyramid that still fills the picture, and its mpp."""
    level = 0
    while (coarser := f"{LABELS}/{level + 1}") in group and max(read_array(group, coarser).shape) >= _OVERLAY_PX:
        level += 1
    return read_whole(read_array(group, f"{LABELS}/{level}")), made_by.grid.mpp_map * 2**level


def draw_overlay(
    rgb: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    classes: tuple[TissueClass, ...],
    areas_mm2: NDArray[np.floating],
    *,
    mpp: float,
    title: str,
) -> Image.Image:
    """Draw the picture.

    Parameters
    ----------
    rgb
        The slide, ``(height, width, 3)`` uint8.
    labels
        Label values over the same area, of any resolution.
    areas_mm2
        Area of each class, for the legend.
    mpp
        Resolution of ``rgb`` in um/px, for the scale bar.
    """
    height, width = rgb.shape[:2]
    shown = np.asarray(Image.fromarray(labels).resize((width, height), Image.Resampling.NEAREST))
    canvas = Image.new("RGB", (width + _LEGEND_PX, max(height, 80 + 48 * (len(classes) + 2))), "white")
    canvas.paste(Image.fromarray(_tint(rgb, shown, classes)), (0, 0))
    draw = ImageDraw.Draw(canvas)
    _draw_legend(draw, width + _MARGIN_PX, classes, areas_mm2, title)
    _draw_scale_bar(draw, width, height, mpp)
    return canvas


def _tint(rgb: NDArray[np.uint8], labels: NDArray[np.uint8], classes: tuple[TissueClass, ...]) -> NDArray[np.uint8]:
    colours = colour_table(classes).astype(np.float32)
    grey = np.asarray(Image.fromarray(rgb).convert("L"), np.float32)
    picture = rgb.astype(np.float32)
    inside = labels > 0
    picture[inside] = grey[inside, None] * (1 - _OPACITY) + colours[labels[inside]] * _OPACITY
    edge = edges(labels)
    picture[edge] = colours[labels[edge]] * 0.7
    return np.rint(picture).astype(np.uint8)


def label_picture(labels: NDArray[np.uint8], classes: tuple[TissueClass, ...], size_px: tuple[int, int]) -> Image.Image:
    """Return label values as a picture of ``(width, height)`` px with the classes' colours as its palette."""
    picture = Image.fromarray(labels).resize(size_px, Image.Resampling.NEAREST)
    picture.putpalette(colour_table(classes).ravel().tolist())
    return picture


def edges(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return the pixels of a class that touch another class or none, to the left, right, above or below."""
    edge = np.zeros(labels.shape, bool)
    across, down = labels[:, 1:] != labels[:, :-1], labels[1:] != labels[:-1]
    edge[:, :-1] |= across
    edge[:, 1:] |= across
    edge[:-1] |= down
    edge[1:] |= down
    return edge & (labels > 0)


def _draw_legend(
    draw: ImageDraw.ImageDraw, left: int, classes: tuple[TissueClass, ...], areas_mm2: NDArray[np.floating], title: str
) -> None:
    large, small = _font(24), _font(18)
    room = _LEGEND_PX - 2 * _MARGIN_PX
    while draw.textlength(title, font=large) > room and len(title) > 1:
        title = title.rstrip("…")[:-1] + "…"
    draw.text((left, 20), title, fill="black", font=large)
    total = float(areas_mm2.sum())
    for row, (entry, area) in enumerate(zip(classes, areas_mm2, strict=True)):
        y = 76 + 48 * row
        draw.rectangle((left, y, left + 28, y + 28), fill=entry.color, outline="black")
        draw.text((left + 40, y + 2), entry.name, fill="black", font=small)
        share = 100 * float(area) / total if total else 0.0
        draw.text((left + room, y + 2), f"{area:.3f} mm²  {share:4.1f} %", fill="black", font=small, anchor="ra")
    y = 76 + 48 * len(classes)
    draw.line((left, y, left + room, y), fill="black")
    draw.text((left + 40, y + 8), "Tissue", fill="black", font=small)
    draw.text((left + room, y + 8), f"{total:.3f} mm²   100 %", fill="black", font=small, anchor="ra")


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    # Pillow's built-in font has neither µ nor ². To import matplotlib for its font would take longer than the picture.
    file = distribution("matplotlib").locate_file("matplotlib/mpl-data/fonts/ttf/DejaVuSans.ttf")
    return ImageFont.truetype(str(file), size)


def scale_bar(width_px: float, mpp: float) -> tuple[int, str] | None:
    """Return the longest round length that fits a quarter of a picture, in um and as text; None if none does."""
    fitting = [length for length in _NICE_LENGTHS_UM if length <= mpp * width_px / 4]
    if not fitting:
        return None
    length_um = max(fitting)
    return length_um, f"{length_um} µm" if length_um < 1000 else f"{length_um // 1000} mm"


def _draw_scale_bar(draw: ImageDraw.ImageDraw, width: int, height: int, mpp: float) -> None:
    bar = scale_bar(width, mpp)
    if bar is None:
        return
    length_px = round(bar[0] / mpp)
    x0, y0 = _MARGIN_PX, height - _MARGIN_PX
    draw.rectangle((x0 - 10, y0 - 44, x0 + length_px + 10, y0 + 12), fill="white")
    draw.rectangle((x0, y0 - 6, x0 + length_px, y0), fill="black")
    draw.text((x0 + length_px / 2, y0 - 12), bar[1], fill="black", font=_font(22), anchor="ms")
