"""The sample sheet: which slides are segmented, and what is known of each.

A sheet is a table with a header, tab-separated (in a ``.csv``: comma-separated); a pattern such as ``data/*.svs`` makes
one from file names.
"""

from __future__ import annotations

import csv
import glob
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sampath_wsi.errors import ConfigError
from sampath_wsi.files import write_table
from sampath_wsi.runs.validation import check, schema_path

COLUMNS = ("slide", "path", "mpp", "tissue_mask", "region", "truth")
_PATHS = ("path", "tissue_mask", "region", "truth")
_DELIMITERS = {".tsv": "\t", ".csv": ","}
_LONGEST_ID = 128
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
# Not what else counts as the end of a line in Unicode: file names may hold it.
_NEW_LINE = re.compile(r"\r\n|\r|\n")
_MPP = re.compile(r"(?P<x>\d*\.?\d+)(?:\s*x\s*(?P<y>\d*\.?\d+))?")


@dataclass(frozen=True)
class SheetRow:
    """One slide of the sheet; columns that this program does not know are kept in ``extra``."""

    slide: str
    path: str
    mpp: str = ""
    tissue_mask: str = ""
    region: str = ""
    truth: str = ""
    extra: dict[str, str] = field(default_factory=dict)


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
    """Slides from words of a command line: a sample sheet, patterns, or the files that a shell made of a pattern.

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
    """``0.25`` or ``0.25x0.26`` as (x, y) in micrometres a pixel.

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
    """A slide id for a file name: letters, digits, ``.``, ``_`` and ``-``; everything else becomes ``_``."""
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
    reader.fieldnames = header
    return header


def _check_spelling(path: Path, header: Sequence[str]) -> None:
    """Refuse columns that are ours but for a slip: they would be passed on, and what they say would not be used."""
    for name in header:
        for known in COLUMNS:
            if name not in COLUMNS and known not in header and _is_nearly(name, known):
                raise ConfigError(
                    f"{path}: there is no column '{name}' (is '{known}' meant?)",
                    "Rename it. Columns of your own may have any name that is not so near to one of ours.",
                )


def _is_nearly(name: str, known: str) -> bool:
    """Whether two names differ in case, blanks, or a single letter: added, missing, wrong, or changed with the next."""
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
    check(known, schema_path("slides"), where)
    if "mpp" in known:
        try:
            parse_mpp(known["mpp"])
        except ConfigError as error:
            raise ConfigError(f"{where}, column mpp: {error}") from None
    return SheetRow(**known, extra={key: value for key, value in values.items() if key not in COLUMNS})


def _as_argument(column: str, value: str) -> str:
    """A path that begins with a dash in full: on a command line it would be an option."""
    return str(Path(value).absolute()) if column in _PATHS and value.startswith("-") else value


def _from_patterns(patterns: Sequence[str]) -> list[SheetRow]:
    rows = []
    for pattern in patterns:
        # A file's own name may look like a pattern: a [1].svs
        found = [pattern] if Path(pattern).is_file() else sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207
        if not found:
            raise ConfigError(f"slides: nothing matches '{pattern}'", "Check the pattern, or name a .tsv sample sheet.")
        for path in found:
            row = {"slide": safe_id(Path(path).stem), "path": _as_argument("path", path)}
            check(row, schema_path("slides"), f"slides: {path}")
            rows.append(SheetRow(row["slide"], row["path"]))
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
