"""Slides with annotations from QuPath: tiles at one resolution, with the classes of the annotations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray

from sampath_wsi.errors import ConfigError, DataError
from sampath_wsi.geometry import Box
from sampath_wsi.progress import Progress
from sampath_wsi.qupath.drawing import Drawing, is_ignored, read_drawing
from sampath_wsi.runs.sheet import SheetRow, parse_mpp, read_slides
from sampath_wsi.slides import SlideInfo, SlideReader, inspect_slide
from sampath_wsi.training.data.pictures import check_present
from sampath_wsi.training.data.prepare.drawn import Painter, label_drawing
from sampath_wsi.training.data.prepare.label_map import MAX_CLASSES, LabelMap, MappedClass
from sampath_wsi.training.data.prepared import TRAIN
from sampath_wsi.training.data.prepared_writer import LabelledImage, Summary, write_prepared
from sampath_wsi.training.data.windows import cover

_TILE_PX = 1024
# For classes whose file names no colour.
_COLOURS = ((200, 0, 0), (150, 200, 150), (160, 90, 160), (50, 50, 50), (255, 200, 0), (0, 120, 200), (0, 160, 120))


@dataclass(frozen=True)
class AnnotatedSlide:
    """One row of the sheet, with the content of its files."""

    row: SheetRow
    info: SlideInfo
    drawing: Drawing


class Window(NamedTuple):
    """A rectangle of a slide in pixels of the wanted resolution."""

    x_px: int
    y_px: int
    width_px: int
    height_px: int


def prepare_annotations(
    sheet: str | Path,
    out: str | Path,
    *,
    label_map: LabelMap | None = None,
    tile_px: int | None = None,
    mpp: float | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Prepare annotated slides.

    Tiles cover the annotations (each rectangle that holds some is a field, over which tiles are spread evenly); tiles
    without a label are dropped. Pixels outside of annotations stay unlabelled. No slide is ever whole in memory.

    Parameters
    ----------
    sheet
        A sample sheet (``.tsv`` or ``.csv``) with the columns ``slide``, ``path``, ``annotations``, and at will
        ``mpp``, ``group`` (default: the slide) and ``split`` (default: ``train``).
    label_map
        Which class names mean which class; by default every name that occurs is a class, in alphabetical order.
    tile_px, mpp
        Size and resolution of the tiles; by default the label map's, else 1024 px and 0.5 um/px.

    Raises
    ------
    ConfigError
        If the sheet makes no sense.
    DataError, AnnotationError, SlideError
        Its message names the missing or unfitting file.
    """
    slides = read_annotated_slides(Path(sheet))
    label_map = label_map or _label_map_of_names(Path(sheet).stem, [slide.drawing for slide in slides])
    tile_px, mpp = tile_px or label_map.tile_px or _TILE_PX, mpp or label_map.mpp
    sources, warnings = {}, list[str]()
    for slide in slides:
        painter, more = label_drawing(slide.drawing, label_map)
        sources[slide.row.slide] = partial(_cut, slide, painter, mpp, tile_px)
        warnings += [*slide.drawing.warnings, *more]
        coarsest = max(slide.info.mpp)
        if mpp < 0.9 * coarsest:
            warnings.append(
                f"slide {slide.row.slide} has {coarsest:g} um/px only: its tiles of {mpp:g} um/px are blurred"
            )
    info = label_map.dataset_info(mpp, f"{len(slides)} annotated slides, tiles of {tile_px} px")
    return write_prepared(out, info, sources, "slides", warnings, progress)


def read_annotated_slides(sheet: Path) -> list[AnnotatedSlide]:
    """Read a sheet, its slides' metadata and their annotations, before any pixel is read.

    Raises
    ------
    ConfigError
        If the sheet makes no sense.
    DataError, AnnotationError, SlideError
        Its message names the missing or unfitting file.
    """
    if not sheet.is_file():
        raise ConfigError(f"{sheet}: there is no such sheet", "Name a .tsv or .csv; docs/data.md shows one.")
    if sheet.suffix not in (".tsv", ".csv"):
        raise ConfigError(f"{sheet}: is no .tsv or .csv", "Save the sheet as one of them.")
    rows = read_slides(str(sheet))
    for row in rows:
        if not row.extra.get("annotations"):
            raise ConfigError(f"{sheet}: slide {row.slide} names no annotations", "Add the column 'annotations'.")
    files = [Path(path) for row in rows for path in (row.path, row.extra["annotations"])]
    check_present(files, f"Correct the paths in {sheet} (they begin where the command runs).")
    slides = []
    for row in rows:
        info = inspect_slide(Path(row.path), mpp=parse_mpp(row.mpp) if row.mpp else None)
        slides.append(AnnotatedSlide(row, info, read_drawing(Path(row.extra["annotations"]), info)))
    return slides


def _label_map_of_names(name: str, drawings: Sequence[Drawing]) -> LabelMap:
    """Make every class name that occurs a class, in alphabetical order.

    Raises
    ------
    DataError
        If there is none, there are too many, or a name cannot be a class's.
    """
    colours: dict[str, tuple[int, int, int] | None] = {}
    for annotation in (annotation for drawing in drawings for annotation in drawing.annotations):
        found = annotation.class_name
        if found is not None and not is_ignored(found):
            colours[found] = colours.get(found) or annotation.colour
    advice = "Say what it means in a label map (--label-map; docs/data.md explains it)."
    if derived := [found for found in colours if ":" in found]:
        raise DataError(f"{name}: the class {derived[0]!r} is a derived one", advice)
    if not colours:
        raise DataError(f"{name}: no annotation has a class", advice)
    if len(colours) > MAX_CLASSES:
        raise DataError(
            f"{name}: annotations have {len(colours)} classes, and a model at most {MAX_CLASSES}",
            "Join them in a label map (--label-map; docs/data.md explains it).",
        )
    if unprintable := [found for found in colours if not found.isprintable()]:
        raise DataError(f"{name}: the class {unprintable[0]!r} contains control characters", advice)
    classes = [
        MappedClass(name=found, color=colours[found] or _COLOURS[k % len(_COLOURS)])
        for k, found in enumerate(sorted(colours))
    ]
    return LabelMap(name=name, classes=tuple(classes))


def _cut(slide: AnnotatedSlide, painter: Painter, mpp: float, tile_px: int) -> Iterator[LabelledImage]:
    """Cut the tiles that cover a slide's annotations and hold a label."""
    row, scale = slide.row, np.array(slide.info.mpp) / mpp
    width, height = (max(1, int(n)) for n in slide.info.size_level0_px * scale)
    fields = plan_fields(painter.bounds_level0_px() * np.tile(scale, 2), (width, height), tile_px)
    with SlideReader(slide.info) as reader:
        for field in fields:
            size_px = min(tile_px, field.width_px), min(tile_px, field.height_px)
            for x, y in cover(field.width_px, field.height_px, tile_px):
                left, top = field.x_px + x, field.y_px + y
                box_level0_px = Box(left / scale[0], top / scale[1], size_px[0] / scale[0], size_px[1] / scale[1])
                labels = painter.paint(box_level0_px, size_px)
                if not labels.any():
                    continue
                name = f"{row.slide}_x{left}_y{top}"
                yield LabelledImage(
                    name,
                    reader.read(box_level0_px, size_px, what=f"tile {name}"),
                    labels,
                    row.extra.get("group") or row.slide,
                    row.extra.get("split") or TRAIN,
                    field=f"{row.slide}_x{field.x_px}_y{field.y_px}",
                    x_px=x,
                    y_px=y,
                )


def plan_fields(bounds_px: NDArray[np.float64], size_px: tuple[int, int], tile_px: int) -> list[Window]:
    """Return disjoint rectangles that hold everything drawn, each at least a tile wide and high where the slide is.

    Parameters
    ----------
    bounds_px
        ``(n, 4)``: left, top, right, bottom of the annotations.
    size_px
        Width and height of the slide.

    Returns
    -------
    Row by row.
    """
    size = np.array(size_px)
    low, high = np.floor(bounds_px[:, :2]).astype(int), np.ceil(bounds_px[:, 2:]).astype(int)
    low, high = np.clip(low, 0, size - 1), np.clip(high, 1, size)
    # An annotation smaller than a tile lies in its middle, unless the tile would reach beyond the slide.
    wanted = np.minimum(np.maximum(high - low, tile_px), size)
    low = np.clip(low - (wanted - (high - low)) // 2, 0, size - wanted)
    boxes = np.concatenate([low, low + wanted], axis=1).astype(float)
    count = 0
    while count != len(boxes):  # Boxes that met become their common bounds, which may meet others.
        count = len(boxes)
        boxes = shapely.bounds(shapely.get_parts(shapely.union_all(shapely.box(*boxes.T))))
    corners = boxes.round().astype(int).tolist()
    return sorted((Window(x0, y0, x1 - x0, y1 - y0) for x0, y0, x1, y1 in corners), key=lambda w: (w.y_px, w.x_px))
