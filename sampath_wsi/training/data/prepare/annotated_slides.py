"""Annotated slides as a sheet lists them, before a pixel is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sampath_wsi.errors import ConfigError
from sampath_wsi.runs.sheet import SheetRow, parse_mpp, read_slides
from sampath_wsi.slides import SlideInfo, inspect_slide
from sampath_wsi.training.data.pictures import check_present
from sampath_wsi.training.data.prepare.drawn import Drawing, read_drawing


@dataclass(frozen=True)
class AnnotatedSlide:
    """One row of the sheet, with what its files say."""

    row: SheetRow
    info: SlideInfo
    drawing: Drawing

    @property
    def group(self) -> str:
        return self.row.extra.get("group") or self.row.slide

    @property
    def split(self) -> str:
        return self.row.extra.get("split") or "train"


def read_annotated_slides(sheet: Path) -> list[AnnotatedSlide]:
    """Read a sheet, describe its slides and read what was drawn on them.

    Raises
    ------
    ConfigError
        If the sheet makes no sense.
    DataError, AnnotationError, SlideError
        Naming what is missing or does not fit.
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
