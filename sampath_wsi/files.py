"""Files that appear whole or not at all, and their names by content."""

from __future__ import annotations

import csv
import errno
import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sampath_wsi.errors import StoreError

log = logging.getLogger(__name__)

# Some cluster file systems know no locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Yield a path next to ``path`` to write to; it is renamed to ``path`` at the end, and removed on an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last: writers choose the format by it. The name is always the same, so that the next run takes
    # the place of one that a killed process left.
    aside = path.with_name(f".partial.{path.name}")
    try:
        yield aside
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def open_alone(growing: Path, result: Path) -> int:
    """Open a file for writing at its end that no other process may write until this one closes it or dies.

    Parameters
    ----------
    growing
        The file, which is made if need be; it may be renamed while it is open. A line of text in it that begins with a
        space and "process" tells who writes it.
    result
        What becomes of it, for the message.

    Raises
    ------
    StoreError
        If another process has it.
    """
    while True:
        growing.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(growing, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tail = os.pread(file, 1 << 20, max(0, os.fstat(file).st_size - (1 << 20)))
            os.close(file)
            owners = [line[1:] for line in tail.splitlines() if line.startswith(b" process ")]
            who = owners[-1].decode(errors="replace") if owners else "another process"
            raise StoreError(f"{result}: {who} is writing it at this moment", "Wait until it is done.") from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(file)
                raise
            log.warning("%s: no locks on this file system: do not write it with two runs at once", result)
            return file
        # The one who had it may have put it in place between the two steps above.
        if growing.exists() and os.path.samestat(os.fstat(file), growing.stat()):
            return file
        os.close(file)


def write_json(path: Path, value: object) -> None:
    """Write readable, strictly valid JSON in one step."""
    with written_aside(path) as aside:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        # File names that are not UTF-8 hold lone surrogates, which are escaped with backslashes as JSON does.
        aside.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_table(
    path: Path,
    rows: Sequence[Mapping[str, object]],
    *,
    delimiter: str = ",",
    shown: Callable[[Any], object] = lambda cell: cell,
) -> None:
    """Write rows as CSV in one step: the columns of all rows, in order of appearance; missing cells are empty.

    Parameters
    ----------
    shown
        What is written for a cell or a column's name.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with (
        written_aside(path) as aside,
        aside.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        writer.writerow([shown(name) for name in columns])
        writer.writerows([shown(row.get(name, "")) for name in columns] for row in rows)


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
