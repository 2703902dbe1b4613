"""The sample sheet: the slides to segment, and what is known of each.

A sheet is a table with a header, tab-separated (in a ``.csv``: comma-separated); a pattern such as ``data/*.svs`` makes
one from file names.
"""

from __future__ import annotations

import csv
import glob
import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from sampath_wsi.errors import ConfigError
from sampath_wsi.files import write_table
from sampath_wsi.options.base import Options

log = logging.getLogger(__name__)

SLIDE_ID = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
FILES = ("path", "tissue_mask", "roi", "truth")
_RENAMED = {"region": "roi"}
_DELIMITERS = {".tsv": "\t", ".csv": ","}
_LONGEST_ID = 128
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
# Not Unicode's other line ends: file names may hold them.
_NEW_LINE = re.compile(r"\r\n|\r|\n")
_MPP = re.compile(r"(?P<x>\d*\.?\d+)(?:\s*x\s*(?P<y>\d*\.?\d+))?")


_File = Annotated[str, Field(pattern=r"^([^{}\x00-\x1f\x7f]+|)$")]


class SheetRow(Options):
    """One row of the sample sheet; columns that are not named here are passed on to the cohort's table."""

    slide: Annotated[str, Field(pattern=SLIDE_ID)]
    """a name for the slide of letters, digits, '.', '_' and '-', beginning with a letter or digit"""
    path: Annotated[str, Field(pattern=r"^[^{}\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+$")]
    """the path of the slide's file; it holds no braces, which Snakemake takes for its own, and no control characters"""
    mpp: Annotated[str, Field(pattern=r"^([0-9.]+( ?x ?[0-9.]+)?|)$")] = ""
    """micrometres a level-0 pixel, such as 0.25 or 0.25x0.26; empty to take it from the slide"""
    tissue_mask: _File = ""
    """the path of an image of the whole slide of any size, not 0 where there is tissue"""
    roi: _File = ""
    """the path of QuPath annotations (GeoJSON); only what lies inside them is segmented"""
    truth: _File = ""
    """the path of the true class map (TIFF, label values), to score the result with"""
    extra: dict[str, str] = Field(default_factory=dict)
    """all other columns"""


COLUMNS = tuple(name for name in SheetRow.model_fields if name != "extra")


def read_slides(slides: str) -> list[SheetRow]:
    """Read a sample sheet, or make one from a pattern of file names.

    Parameters
    ----------
    slides
        Path of a ``.tsv`` or ``.csv`` file, or file names and patterns separated by commas.

    Raises
    ------
    ConfigError
        Naming row, column and remedy.
    """
    rows = _read_table(Path(slides)) if Path(slides).suffix in _DELIMITERS else _from_patterns(_split(slides))
    _check_unique(rows, slides)
    return rows


def collect_slides(words: Sequence[str]) -> list[SheetRow]:
    """Return the slides that a command line names: by a sample sheet, patterns, or files.

    Raises
    ------
    ConfigError
        As :func:`read_slides` does.
    """
    if folders := [word for word in words if Path(word).is_dir()]:
        raise ConfigError(f"slides: {folders[0]} is a folder", f"Name the slides in it: '{Path(folders[0], '*.svs')}'.")
    if len(words) == 1 and (Path(words[0]).suffix in _DELIMITERS or not Path(words[0]).is_file()):
        return read_slides(words[0])
    if sheets := [word for word in words if Path(word).suffix in _DELIMITERS]:
        raise ConfigError(f"slides: {sheets[0]} stands beside others", "Name one sample sheet, or slides.")
    rows = _from_patterns(words)
    _check_unique(rows, "slides")
    return rows


def write_slides(rows: Sequence[SheetRow], path: Path) -> None:
    """Write a sample sheet, tab-separated, that :func:`read_slides` reads again."""
    table = [{**{name: getattr(row, name) for name in COLUMNS}, **row.extra} for row in rows]
    write_table(path, table, delimiter="\t")


def parse_mpp(text: str) -> tuple[float, float]:
    """Return (x, y) in micrometres a pixel of ``0.25`` or ``0.25x0.26``.

    Raises
    ------
    ConfigError
        If the text is neither, or not positive.
    """
    match = _MPP.fullmatch(text.strip())
    mpp = (float(match["x"]), float(match["y"] or match["x"])) if match else (0.0, 0.0)
    if min(mpp) <= 0:
        raise ConfigError(f"mpp '{text}' is not a resolution", "Write micrometres a pixel, e.g. 0.25 or 0.25x0.26.")
    return mpp


def safe_id(stem: str) -> str:
    """Return a slide id for a file name: letters, digits, ``.``, ``_`` and ``-``; everything else becomes ``_``."""
    return _UNSAFE.sub("_", stem).strip("._-")[:_LONGEST_ID] or "slide"


def _read_table(path: Path) -> list[SheetRow]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such sample sheet", "Check its path.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}", "Save it as text in UTF-8.") from error
    lines = [line for line in _NEW_LINE.split(text) if line.strip() and not line.startswith("#")]
    reader = csv.DictReader(lines, delimiter=_DELIMITERS[path.suffix], strict=True)
    header = _header(path, reader)
    for required in ("slide", "path"):
        if required not in header:
            raise ConfigError(
                f"{path}: the header lacks the column '{required}' (it has: {', '.join(header) or 'nothing'})",
                "Separate columns by tabs (.csv: commas), and name at least 'slide' and 'path'.",
            )
    _check_spelling(path, header)
    rows = [_row(path, number, entry) for number, entry in enumerate(_entries(path, reader), start=1)]
    if not rows:
        raise ConfigError(f"{path}: the sample sheet names no slide", "Add one line a slide.")
    return rows


def _header(path: Path, reader: csv.DictReader[str]) -> list[str]:
    try:
        header = [name.strip() for name in reader.fieldnames or []]
    except csv.Error as error:
        raise ConfigError(f"{path}: the header cannot be read: {error}", "Mend its quotes.") from error
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise ConfigError(f"{path}: the header names the column '{twice[0]}' twice", "Rename one of them.")
    for old, new in _RENAMED.items():
        if old in header and new not in header:
            log.warning("%s: the column '%s' is called '%s' now", path, old, new)
            header[header.index(old)] = new
    reader.fieldnames = header
    return header


def _check_spelling(path: Path, header: Sequence[str]) -> None:
    """Refuse misspelt names of known columns, whose content would otherwise be ignored."""
    for name in header:
        for known in COLUMNS:
            if name not in COLUMNS and known not in header and _is_nearly(name, known):
                raise ConfigError(
                    f"{path}: there is no column '{name}' (is '{known}' meant?)",
                    "Rename it. Columns of your own may have any name that is not so near to one of ours.",
                )


def _is_nearly(name: str, known: str) -> bool:
    """Return whether two names differ in case, blanks, or one letter (added, missing, wrong, or swapped)."""
    name = re.sub(r"[\s-]+", "_", name.lower())
    same = next((k for k, (a, b) in enumerate(zip(name, known, strict=False)) if a != b), min(len(name), len(known)))
    one, other = name[same:], known[same:]
    swapped = one[:2] == other[1::-1] and one[2:] == other[2:]
    return swapped or one[1:] == other or one == other[1:] or one[1:] == other[1:]


def _entries(path: Path, reader: csv.DictReader[str]) -> Iterable[dict[str, str | None]]:
    try:
        yield from reader
    except csv.Error as error:
        raise ConfigError(f"{path}, row {reader.line_num - 1}: {error}", "Mend the quotes of this row.") from error


def _row(path: Path, number: int, entry: dict[str, str | None]) -> SheetRow:
    where = f"{path}, row {number}"
    if None in entry or None in entry.values():
        raise ConfigError(
            f"{where}: it has not as many columns as the header", "Separate columns by single tabs (.csv: commas)."
        )
    values = {key: (value or "").strip() for key, value in entry.items()}
    known = {key: _as_argument(key, value) for key, value in values.items() if key in COLUMNS and value}
    row = SheetRow.of({**known, "extra": {key: value for key, value in values.items() if key not in COLUMNS}}, where)
    if row.mpp:
        try:
            parse_mpp(row.mpp)
        except ConfigError as error:
            raise ConfigError(f"{where}, column mpp: {error}") from None
    return row


def _as_argument(column: str, value: str) -> str:
    """Return a path that begins with a dash in full, because on a command line it would be an option."""
    return str(Path(value).absolute()) if column in FILES and value.startswith("-") else value


def _from_patterns(patterns: Sequence[str]) -> list[SheetRow]:
    rows = []
    for pattern in patterns:
        # A file's own name may look like a pattern: a [1].svs
        found = [pattern] if Path(pattern).is_file() else sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207
        if not found:
            raise ConfigError(f"slides: nothing matches '{pattern}'", "Check the pattern, or name a .tsv sample sheet.")
        for path in found:
            row = {"slide": safe_id(Path(path).stem), "path": _as_argument("path", path)}
            rows.append(SheetRow.of(row, f"slides: {path}"))
    if not rows:
        raise ConfigError("slides: the pattern is empty", "Name a .tsv sample sheet or a pattern like data/*.svs.")
    return rows


def _split(patterns: str) -> list[str]:
    # A single pattern may hold spaces (folders of Windows shares do), so only commas separate.
    return [pattern.strip() for pattern in patterns.split(",") if pattern.strip()]


def _check_unique(rows: list[SheetRow], slides: str) -> None:
    seen: dict[str, int] = {}
    for number, row in enumerate(rows, start=1):
        # Compared without case: some file systems cannot hold both.
        first = seen.setdefault(row.slide.lower(), number)
        if first != number:
            raise ConfigError(
                f"{slides}, rows {first} and {number}: the slide id '{row.slide}' occurs twice",
                "Give every slide an id of its own (in a sample sheet).",
            )
