"""GlaS: images of colon glands with instance masks, in the layout of its archive or with ``samples.csv``."""

from __future__ import annotations

import csv
from pathlib import Path

from sampath_wsi.errors import DataError
from sampath_wsi.progress import Progress
from sampath_wsi.training.data.pictures import check_folder, check_present
from sampath_wsi.training.data.prepare.coding import Coding, load_coding
from sampath_wsi.training.data.prepare.masks import MaskedImage, write_masked_images
from sampath_wsi.training.data.prepare.tally import Summary

HOW = (
    "Download GlaS (https://warwick.ac.uk/fac/cross_fac/tia/data/glascontest) and name the folder that holds "
    "Grade.csv, train_1.bmp, train_1_anno.bmp and so on (or samples.csv, images/ and masks/)."
)


def prepare_glas(
    source: str | Path,
    out: str | Path,
    *,
    coding: Coding | None = None,
    tile_px: int | None = None,
    mpp: float | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Prepare GlaS; images stay whole unless ``tile_px`` is given.

    Group is the patient, split is ``train``, ``testA`` or ``testB``. The official splits share patients.

    Parameters
    ----------
    source
        The archive's folder, or one with ``samples.csv`` (columns ``name``, ``split``, ``patient``), ``images/`` and
        ``masks/``.
    coding
        What the masks' codes mean; by default the one that ships.
    tile_px, mpp
        See :func:`sampath_wsi.training.data.prepare.masks.write_masked_images`.

    Raises
    ------
    DataError
        Naming what is missing or does not fit.
    """
    source, coding = Path(source), coding or load_coding("glas")
    check_folder(source, HOW)
    pairs = _folder(source) if (source / "samples.csv").is_file() else _archive(source)
    check_present([path for pair in pairs for path in (pair.image, pair.mask)], HOW)
    return write_masked_images(pairs, out, coding, tile_px=tile_px, mpp=mpp, progress=progress)


def _folder(source: Path) -> list[MaskedImage]:
    return [
        MaskedImage(
            name,
            source / "images" / f"{name}.png",
            source / "masks" / f"{name}.png",
            f"patient{row['patient']}",
            row["split"],
        )
        for name, row in _table(source / "samples.csv", ("name", "split", "patient")).items()
    ]


def _archive(source: Path) -> list[MaskedImage]:
    return [
        MaskedImage(
            name,
            source / f"{name}.bmp",
            source / f"{name}_anno.bmp",
            f"patient{row['patient ID']}",
            name.rpartition("_")[0],
        )
        for name, row in _table(source / "Grade.csv", ("name", "patient ID")).items()
    ]


def _table(path: Path, columns: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """Rows of a CSV file by ``name``; blanks round names and values are dropped."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [[cell.strip() for cell in line] for line in csv.reader(file) if line]
    except FileNotFoundError:
        raise DataError(f"{path} is missing", HOW) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read ({error})", "Download or copy it again.") from None
    header = lines[0] if lines else []
    lacking = [column for column in columns if column not in header]
    if lacking:
        raise DataError(f"{path} lacks the column {lacking[0]}", f"It needs the columns {', '.join(columns)}.")
    rows = [dict(zip(header, line, strict=False)) for line in lines[1:]]
    table: dict[str, dict[str, str]] = {}
    for number, row in enumerate(rows, 2):
        empty = [column for column in columns if not row.get(column)]
        if empty:
            raise DataError(f"{path}, line {number}: the column {empty[0]} is empty", "Download or copy it again.")
        if row["name"] in table:
            raise DataError(f"{path}, line {number}: {row['name']} occurs twice", "Name each image once.")
        table[row["name"]] = row
    if not table:
        raise DataError(f"{path} names no image", HOW)
    return table
