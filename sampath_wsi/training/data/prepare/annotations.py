"""Slides with annotations from QuPath: tiles at one resolution, with the classes of what was drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sampath_wsi.errors import DataError
from sampath_wsi.geometry import Box
from sampath_wsi.progress import Progress
from sampath_wsi.slides import SlideReader
from sampath_wsi.training.data.prepare.annotated_slides import AnnotatedSlide, read_annotated_slides
from sampath_wsi.training.data.prepare.coding import CodedClass, Coding
from sampath_wsi.training.data.prepare.drawn import Drawing, Painter, is_ignored, label_drawing
from sampath_wsi.training.data.prepare.regions import plan_regions
from sampath_wsi.training.data.prepare.tally import Summary, Tally
from sampath_wsi.training.data.prepared import DatasetInfo
from sampath_wsi.training.data.prepared_writer import PreparedWriter
from sampath_wsi.training.data.windows import cover

_TILE_PX = 1024
# For classes whose file names no colour.
_COLOURS = ((200, 0, 0), (150, 200, 150), (160, 90, 160), (50, 50, 50), (255, 200, 0), (0, 120, 200), (0, 160, 120))


@dataclass(frozen=True)
class _Tile:
    name: str
    field: str
    x_px: int
    y_px: int
    """Its corner in the field."""
    size_px: tuple[int, int]
    box_level0_px: Box


def prepare_annotations(
    sheet: str | Path,
    out: str | Path,
    *,
    coding: Coding | None = None,
    tile_px: int | None = None,
    mpp: float | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Prepare annotated slides.

    What was drawn is covered by tiles (each rectangle of drawings is a field, its tiles spread evenly), of which those
    without a label are dropped. What was not drawn on stays unlabelled. No slide is ever whole in memory.

    Parameters
    ----------
    sheet
        A sample sheet (``.tsv`` or ``.csv``) with the columns ``slide``, ``path``, ``annotations``, and at will
        ``mpp``, ``group`` (default: the slide) and ``split`` (default: ``train``).
    coding
        Which class names mean which class; by default every name that occurs is a class, in alphabetical order.
    tile_px, mpp
        Size and resolution of the tiles; by default the coding's, else 1024 px and 0.5 um/px.

    Raises
    ------
    ConfigError
        If the sheet makes no sense.
    DataError, AnnotationError, SlideError
        Naming what is missing or does not fit.
    """
    slides = read_annotated_slides(Path(sheet))
    coding = coding or _coding_of_names(Path(sheet).stem, [slide.drawing for slide in slides])
    tile_px, mpp = tile_px or coding.tile_px or _TILE_PX, mpp or coding.mpp
    painters = []
    tally = Tally(coding.tissue_classes)
    for slide in slides:
        painter, warnings = label_drawing(slide.drawing, coding)
        painters.append(painter)
        tally.warnings += [*slide.drawing.warnings, *warnings, *_too_coarse(slide, mpp)]
    info = DatasetInfo(
        name=coding.name,
        classes=coding.tissue_classes,
        mpp=mpp,
        description=f"{coding.description}; {len(slides)} annotated slides, tiles of {tile_px} px".lstrip("; "),
    )
    with PreparedWriter(out, info) as writer:
        for done, (slide, painter) in enumerate(zip(slides, painters, strict=True), 1):
            _write(writer, tally, slide, painter, _plan_tiles(slide, painter.bounds_level0_px(), mpp, tile_px))
            if progress is not None:
                progress(done, len(slides), "slides")
        return tally.summary(Path(out))


def _coding_of_names(name: str, drawings: Sequence[Drawing]) -> Coding:
    colours: dict[str, tuple[int, int, int] | None] = {}
    for drawing in drawings:
        for annotation in drawing.annotations:
            found = annotation.class_name
            if found is not None and not is_ignored(found):
                colours[found] = colours.get(found) or annotation.colour
    derived = [found for found in colours if ":" in found]
    if not colours or derived:
        what = f"the class {derived[0]!r} is a derived one" if derived else "no annotation has a class"
        raise DataError(f"{name}: {what}", "Say what it means in a coding (--coding; docs/data.md explains it).")
    return Coding(
        name=name,
        classes=tuple(
            CodedClass(name=found, color=colours[found] or _COLOURS[k % len(_COLOURS)])
            for k, found in enumerate(sorted(colours))
        ),
    )


def _too_coarse(slide: AnnotatedSlide, mpp: float) -> list[str]:
    coarsest = max(slide.info.mpp)
    if mpp >= 0.9 * coarsest:
        return []
    return [f"slide {slide.row.slide} has {coarsest:g} um/px only: its tiles of {mpp:g} um/px are blurred"]


def _plan_tiles(slide: AnnotatedSlide, bounds_level0_px: NDArray[np.float64], mpp: float, tile_px: int) -> list[_Tile]:
    """The tiles that cover what was drawn on a slide."""
    scale = np.array(slide.info.mpp) / mpp
    width, height = (max(1, int(n)) for n in slide.info.size_level0_px * scale)
    tiles = []
    for region in plan_regions(bounds_level0_px * np.tile(scale, 2), (width, height), tile_px):
        size_px = min(tile_px, region.width_px), min(tile_px, region.height_px)
        for x, y in cover(region.width_px, region.height_px, tile_px):
            left, top = region.x_px + x, region.y_px + y
            tiles.append(
                _Tile(
                    name=f"{slide.row.slide}_x{left}_y{top}",
                    field=f"{slide.row.slide}_x{region.x_px}_y{region.y_px}",
                    x_px=x,
                    y_px=y,
                    size_px=size_px,
                    box_level0_px=Box(left / scale[0], top / scale[1], size_px[0] / scale[0], size_px[1] / scale[1]),
                )
            )
    return tiles


def _write(
    writer: PreparedWriter, tally: Tally, slide: AnnotatedSlide, painter: Painter, tiles: Sequence[_Tile]
) -> None:
    if not tiles:
        tally.leave_out(slide.row.slide)
    with SlideReader(slide.info) as reader:
        for tile in tiles:
            labels = painter.paint(tile.box_level0_px, tile.size_px)
            if not labels.any():
                continue
            tally.count(labels, slide.group, slide.split)
            writer.add(
                tile.name,
                reader.read(tile.box_level0_px, tile.size_px, what=f"tile {tile.name}"),
                labels,
                slide.group,
                slide.split,
                field=tile.field,
                x_px=tile.x_px,
                y_px=tile.y_px,
            )
