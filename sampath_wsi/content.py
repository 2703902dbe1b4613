"""The content of files that people bring, by which the workflow decides which results are outdated.

Not the time and not the place of a file: a slide that was copied, moved or touched is the same slide, and one that was
replaced under its name is another, whatever its time says. What is known of a file is kept in the results, so that it
is read again only where its size, its times or its inode changed, and so that a file that is away for a moment (an
archive that is not mounted) keeps its finished result.

A slide is sampled, not read: its size and 64 KiB at each of 33 places, of it and of the files beside it that hold its
pixels. A change between these places, in a file of the same size, is not seen. Masks, annotations and true class maps,
which people draw and correct, are read as a whole.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from sampath_wsi.files import sha256, write_json

_SAMPLE_BYTES = 1 << 16
_SAMPLES = 33
_LONGEST_NAME = 256
_UID_TAG = b"\x20\x00\x0e\x00"
"""Tag of the DICOM element SeriesInstanceUID, little endian; all files of a slide have the same value."""


class ContentKeys:
    """Names of files' contents, remembered in a JSON file.

    Parameters
    ----------
    memory
        The file; it is read now, and written by :meth:`save`.
    """

    def __init__(self, memory: Path) -> None:
        self._memory = memory
        try:
            known = json.loads(memory.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = {}
        self._known: dict[str, list[str]] = known if isinstance(known, dict) else {}
        self._new = False

    def of(self, path: str, *, whole: bool = False) -> str:
        """Return the name of a file's content: its last known one while it is away, empty if it was never there.

        Parameters
        ----------
        whole
            Read all of it; else it is a slide, which is sampled.
        """
        place = os.path.abspath(path)  # noqa: PTH100 - it must not follow links
        stamp, content = self._known.get(place, ["", ""])
        try:
            now = "; ".join(_stamp(each) for each in ([Path(path)] if whole else companions(Path(path))))
            if now == stamp:
                return content
            content = (sha256 if whole else sample)(Path(path))
        except OSError:
            return content
        self._known[place], self._new = [now, content], True
        return content

    def save(self) -> None:
        """Write new names; if the folder cannot be written, only time is lost."""
        if self._new:
            try:
                write_json(self._memory, self._known)
            except OSError:
                return
            self._new = False


def sample(path: Path) -> str:
    """Return a digest of samples of a file's content and of that of the files that belong to it."""
    digest = hashlib.sha256()
    for each in companions(path):
        size = each.stat().st_size
        digest.update(f"{size} ".encode())
        with open(each, "rb") as file:
            for k in range(_SAMPLES):
                file.seek(max(0, size - _SAMPLE_BYTES) * k // (_SAMPLES - 1))
                digest.update(file.read(_SAMPLE_BYTES))
                if size <= _SAMPLE_BYTES:
                    break
    return digest.hexdigest()


def companions(path: Path) -> list[Path]:
    """Return a slide's file, and those beside it that hold its pixels: of MIRAX, Hamamatsu VMS and DICOM.

    Raises
    ------
    OSError
        If the slide's own file is away.
    """
    path.stat()
    beside: Iterable[Path]
    match path.suffix.lower():
        case ".mrxs":
            beside = path.with_suffix("").glob("*")
        case ".vms" | ".vmu":
            beside = _named_in(path)
        case ".dcm":
            beside = _of_series(path)
        case _:
            return [path]
    return [path, *sorted(each for each in beside if each.is_file() and each != path)]


def _named_in(path: Path) -> Iterator[Path]:
    """Yield what Hamamatsu's key file names: ``ImageFile(1,0)=a(1,0).jpg``."""
    with open(path, "rb") as file:
        lines = file.read(_SAMPLE_BYTES).decode("latin-1").splitlines()
    names = (line.partition("=")[2].strip() for line in lines)
    return (path.parent / name for name in dict.fromkeys(names) if 0 < len(name) < _LONGEST_NAME)


def _of_series(path: Path) -> Iterator[Path]:
    series = _series_uid(path)
    return (each for each in path.parent.glob("*.dcm") if series and _series_uid(each) == series)


def _series_uid(path: Path) -> bytes:
    """Return the DICOM series of a file; empty if its header names none."""
    with open(path, "rb") as file:
        head = file.read(_SAMPLE_BYTES)
    start = head.find(_UID_TAG)
    if start < 0:
        return b""
    explicit = head[start + 4 : start + 6] == b"UI"
    length = int.from_bytes(head[start + 6 : start + 8] if explicit else head[start + 4 : start + 8], "little")
    return head[start + 8 : start + 8 + min(length, 64)].rstrip(b"\0 ")


def _stamp(path: Path) -> str:
    found = path.stat()
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}"
