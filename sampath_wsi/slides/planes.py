"""TIFFs whose pixels OpenSlide shows wrongly, and says nothing: colours or focal planes as separate images, 16 bits."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import tifffile

from sampath_wsi.errors import SlideError

log = logging.getLogger(__name__)

_PLANES = re.compile(r'\bSize([CZT])\s*=\s*"(\d{1,6})"')
_NAMES = {"C": "channels", "Z": "focal planes", "T": "times"}
_REMEDY = "Convert it to a single plane of RGB with 8 bits a channel."


def check_planes(path: Path) -> None:
    """Raise SlideError for a TIFF that is not one plane of grey or RGB with at most 8 bits a channel."""
    try:
        with tifffile.TiffFile(path) as tiff:
            problem = _problem(tiff)
    except Exception as error:  # A TIFF that this library cannot parse, in whichever way, is left to OpenSlide.
        log.debug("%s: planes not checked: %s", path, error)
        return
    if problem:
        raise SlideError(f"{path}: {problem}", _REMEDY)


def _problem(tiff: tifffile.TiffFile) -> str:
    first = tiff.pages.first
    if first.bitspersample > 8:
        return f"its pixels have {first.bitspersample} bits a channel"
    if first.samplesperpixel > 4:
        return f"its pixels have {first.samplesperpixel} channels"
    if planes := _planes_by_ome(first):
        return f"an OME-TIFF whose {planes} are images of their own, of which only the first would be read"
    size = first.imagewidth, first.imagelength
    # Pages that are masks or reduced have a subfile type.
    pages = [page for page in tiff.pages if isinstance(page, tifffile.TiffPage)]
    same = sum((page.imagewidth, page.imagelength, page.subfiletype) == (*size, 0) for page in pages)
    if same > 1:
        return f"it holds {same} images of its full size (channels or focal planes), of which only one would be read"
    return ""


def _planes_by_ome(first: tifffile.TiffPage) -> str:
    """Return the planes that the first image of the OME-XML names ("3 channels"); empty for a single one."""
    _, found, text = first.description.partition("<Pixels")
    if not found or "<OME" not in first.description:
        return ""
    sizes = {axis: int(size) for axis, size in _PLANES.findall(text.partition(">")[0])}
    if sizes.get("C", 1) <= first.samplesperpixel:
        sizes["C"] = 1  # the channels of one plane
    return " and ".join(f"{size} {_NAMES[axis]}" for axis, size in sizes.items() if size > 1)
