"""Files that appear whole or not at all, and their names by content."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Yield a path next to ``path`` to write to; it is renamed to ``path`` at the end, and removed on an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last: writers choose the format by it. The name is always the same, so that the next run takes
    # the place of what a killed one left.
    aside = path.with_name(f".partial.{path.name}")
    try:
        yield aside
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write readable, strictly valid JSON in one step."""
    with written_aside(path) as aside:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        # File names that are no UTF-8 hold lone surrogates: with backslashes they are what JSON writes for them.
        aside.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV in one step: the columns of all rows, in the order in which they come; a missing one is empty."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with written_aside(path) as aside, aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
