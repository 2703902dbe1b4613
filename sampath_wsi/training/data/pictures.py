"""Images, masks and tables as data sets store them, read with errors that name the file."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from sampath_wsi.errors import DataError

# What becomes RGB without a guess. Of 16 bits nobody says which value is white, of CMYK which ink.
_PICTURE_MODES = ("RGB", "RGBA", "L", "LA", "P", "PA", "YCbCr")
_PICTURE_RULE = "Convert it to RGB with 8 bits a channel."
_ORIENTATION, _PHOTOMETRIC, _MIN_IS_WHITE = 274, 262, 0
SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg")
_CODE_MODES = ("1", "L", "P", "I;16", "I;16B", "I")
# Regions of BCSS reach 10^8 pixels, which Pillow would take for an attack; ten times as many are still refused.
_MAX_PIXELS = 2**30
_AGAIN = "Download or copy it again."


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """Return a picture as ``(H, W, 3)``; DataError if it cannot be read, see :func:`to_rgb`."""
    with _opened(path) as image:
        return to_rgb(image, path)


def to_rgb(image: ImageFile.ImageFile, path: Path) -> NDArray[np.uint8]:
    """Return an opened picture as ``(H, W, 3)``: what is transparent is white, of grey all channels are equal.

    Raises
    ------
    DataError
        See :func:`check_picture`.
    """
    check_picture(image, path)
    if not image.has_transparency_data:
        return np.asarray(image.convert("RGB"))
    above = image.convert("RGBA")
    white = Image.new("RGBA", above.size, "white")
    return np.asarray(Image.alpha_composite(white, above).convert("RGB"))


def check_picture(image: ImageFile.ImageFile, path: Path) -> None:
    """Raise DataError for a picture with 16 bits a channel, of other colours than grey and RGB, or to be turned.

    It must not have been loaded yet.
    """
    if ";16" in str([tile.args for tile in image.tile]) or image.mode.startswith(("I", "F")):
        raise DataError(f"{path}: a picture of more than 8 bits a channel", _PICTURE_RULE)
    if image.mode not in _PICTURE_MODES:
        raise DataError(f"{path}: a picture with the mode {image.mode}", _PICTURE_RULE)
    _check_upright(image, path)


def _tag(image: ImageFile.ImageFile, tag: int) -> int | None:
    """Return a tag of TIFF or EXIF data, if there is one."""
    if image.format == "PNG" and "exif" not in image.info:
        return None  # Pillow would read all pixels to look for EXIF data at the end.
    try:
        return image.getexif().get(tag)
    except Exception:  # Damaged EXIF data raise whatever the parser meets; they say nothing then.
        return None


def _check_upright(image: ImageFile.ImageFile, path: Path) -> None:
    if (orientation := _tag(image, _ORIENTATION)) in range(2, 9):
        raise DataError(
            f"{path}: is to be turned or mirrored (EXIF orientation {orientation})",
            "Save picture and mask upright, without that tag: nothing tells whether both were turned.",
        )


def read_codes(path: Path) -> NDArray[np.integer]:
    """Return a mask as ``(H, W)`` whole numbers; of a palette image the indices.

    Raises
    ------
    DataError
        If it cannot be read, has several channels, or cannot hold codes: JPEG changes them, and of a TIFF whose white
        is 0 nobody knows whether they were stored so or shall be seen so.
    """
    with _opened(path) as image:
        if image.format == "JPEG":
            raise DataError(f"{path}: a mask in JPEG, which changes codes", "Export it as PNG.")
        if image.format == "TIFF" and _tag(image, _PHOTOMETRIC) == _MIN_IS_WHITE:
            raise DataError(f"{path}: a mask whose white is 0", "Export it as PNG, or as a TIFF whose black is 0.")
        _check_upright(image, path)
        codes, mode = np.asarray(image), image.mode
    if mode not in _CODE_MODES:
        raise DataError(f"{path}: a mask with the mode {mode}", "A mask of codes has one channel.")
    return codes.astype(np.uint8) if codes.dtype == bool else codes


@contextmanager
def open_picture(path: Path) -> Iterator[ImageFile.ImageFile]:
    """Open an image of up to 2**30 pixels; errors are Pillow's."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, _MAX_PIXELS
    try:
        with Image.open(path) as image:
            yield image
    finally:
        Image.MAX_IMAGE_PIXELS = limit


@contextmanager
def _opened(path: Path) -> Iterator[ImageFile.ImageFile]:
    try:
        with open_picture(path) as image:
            yield image
    except DataError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read ({error})", _AGAIN) from error


def pictures_in(folder: Path, remedy: str) -> dict[str, Path]:
    """Return the image files of a folder by their names without suffix.

    Parameters
    ----------
    remedy
        What to do if there is no such folder or no image in it: how the source must look.

    Raises
    ------
    DataError
        If there are none, or two with one name.
    """
    check_folder(folder, remedy)
    found: dict[str, Path] = {}
    for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES):
        if path.stem in found:
            raise DataError(f"{path} and {found[path.stem].name} have one name", "Leave one of them.")
        found[path.stem] = path
    if not found:
        raise DataError(f"{folder}: holds no image", remedy)
    return found


def check_folder(folder: Path, remedy: str) -> None:
    """Raise DataError with a remedy if there is no such folder."""
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder", remedy)


def check_present(paths: Sequence[Path], remedy: str) -> None:
    """Raise DataError, with the number of files that are missing and the first one's name, if any is."""
    missing = [path for path in paths if not path.is_file()]
    if missing:
        more = f" (and {len(missing) - 1} more of {len(paths)} files)" if len(missing) > 1 else ""
        raise DataError(f"{missing[0]} is missing{more}", remedy)


def read_table(
    path: Path,
    columns: Sequence[str],
    remedy: str = "Check the path, or prepare the data again.",
    name_of: Callable[[str], str] = str,
) -> dict[str, dict[str, str]]:
    """Return the rows of a CSV file by their first column; blanks round names and cells are dropped.

    Parameters
    ----------
    columns
        What it must have. The first one names the rows, each once.
    remedy
        The remedy if there is no such file, or no row in it.
    name_of
        Makes a row's name from the value of its first column.

    Raises
    ------
    DataError
        If the file is missing, no CSV in UTF-8, or empty, lacks a column, or names a row twice.
    """
    rows: dict[str, dict[str, str]] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = [cell.strip() for cell in next(reader, ())]
            if lacking := [column for column in columns if column not in header]:
                raise DataError(f"{path} lacks the column {lacking[0]}", f"Its columns must be {', '.join(columns)}.")
            for cells in filter(None, reader):
                row = dict.fromkeys(header, "") | dict(zip(header, map(str.strip, cells), strict=False))
                name = name_of(row[columns[0]])
                if name in rows:
                    raise DataError(
                        f"{path}, line {reader.line_num}: {columns[0]} {name} occurs twice",
                        f"Name each {columns[0]} once.",
                    )
                rows[name] = row
    except FileNotFoundError:
        raise DataError(f"{path} is missing", remedy) from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not a text file in UTF-8", "Save it as CSV in UTF-8.") from error
    except csv.Error as error:
        raise DataError(f"{path}: cannot be read ({error})", _AGAIN) from error
    if not rows:
        raise DataError(f"{path} lists no sample", remedy)
    return rows
