"""Images and masks as data sets store them, read with errors that name the file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sampath_wsi.errors import DataError

SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg")
_CODE_MODES = ("1", "L", "P", "I;16", "I;16B", "I")
# Regions of BCSS reach 10^8 pixels, which Pillow would take for an attack; ten times as many are still refused.
_MAX_PIXELS = 2**30


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """An image as ``(H, W, 3)``.

    Raises
    ------
    DataError
        If it cannot be read.
    """
    with _opened(path) as image:
        return np.asarray(image.convert("RGB"))


def read_codes(path: Path) -> NDArray[np.integer]:
    """A mask as ``(H, W)`` whole numbers; of a palette image the indices.

    Raises
    ------
    DataError
        If it cannot be read, or has several channels.
    """
    with _opened(path) as image:
        if image.mode not in _CODE_MODES:
            raise DataError(f"{path}: a mask with the mode {image.mode}", "A mask of codes has one channel.")
        codes = np.asarray(image)
        return codes.astype(np.uint8) if codes.dtype == bool else codes


def pictures_in(folder: Path, beside: str) -> dict[str, Path]:
    """The image files of a folder by their names without suffix.

    Parameters
    ----------
    beside
        What to do if there is no such folder or no image in it: how the source must look.

    Raises
    ------
    DataError
        If there are none, or two with one name.
    """
    check_folder(folder, beside)
    found: dict[str, Path] = {}
    for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES):
        if path.stem in found:
            raise DataError(f"{path} and {found[path.stem].name} have one name", "Leave one of them.")
        found[path.stem] = path
    if not found:
        raise DataError(f"{folder}: holds no image", beside)
    return found


def check_folder(folder: Path, beside: str) -> None:
    """Check that a folder is there.

    Raises
    ------
    DataError
        With what to do, ``beside``, if it is not.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder", beside)


def check_present(paths: Sequence[Path], beside: str) -> None:
    """Check that files are there.

    Raises
    ------
    DataError
        With the number of those missing and the first one's name.
    """
    missing = [path for path in paths if not path.is_file()]
    if missing:
        more = f" (and {len(missing) - 1} more of {len(paths)} files)" if len(missing) > 1 else ""
        raise DataError(f"{missing[0]} is missing{more}", beside)


@contextmanager
def open_picture(path: Path) -> Iterator[Image.Image]:
    """Open an image of up to 2**30 pixels; errors are Pillow's."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, _MAX_PIXELS
    try:
        with Image.open(path) as image:
            yield image
    finally:
        Image.MAX_IMAGE_PIXELS = limit


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with open_picture(path) as image:
            yield image
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read ({error})", "Download or copy it again.") from error
