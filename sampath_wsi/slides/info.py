"""The metadata of a slide: :class:`SlideInfo`, from OpenSlide's properties."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import openslide

from sampath_wsi.content import sample
from sampath_wsi.errors import SlideError
from sampath_wsi.geometry import MppSource
from sampath_wsi.slides.planes import check_planes
from sampath_wsi.stores.provenance import SlideRecord

# um/px outside these and sides longer than this are mistakes of the metadata, not microscopes: a 100x lens gives about
# 0.1 um/px, 300 dots per inch (what an exporter writes that knows nothing) are 85.
_PLAUSIBLE_MPP = (0.08, 10.0)
_LONGEST_SIDE_MM = 400
# A person who gives the resolution may go further.
_POSSIBLE_MPP = (0.02, 100.0)
# Readers that crop to openslide.bounds-*: QuPath does so for these formats in every version.
_CROPPED_BY_QUPATH = ("mirax", "leica")
# Of this vendor are all TIFFs, OME-TIFF too, that no scanner's software wrote.
_PLAIN_TIFF = "generic-tiff"
# OpenSlide decodes a whole tile at once: slides in one strip have some 30,000 x 5,000 px, damaged headers 4 billion.
_MAX_TILE_PX = 1 << 29
_MPP_REMEDIES: dict[MppSource, str] = {
    "sample sheet": "Give the true value in the column 'mpp' of the sample sheet.",
    "command line": "Give the true value as mpp (of a command: --mpp).",
}


@dataclass(frozen=True)
class SlideInfo:
    """The metadata of a slide.

    ``bounds_level0_px`` is the non-empty region ``(x, y, width, height)``: the whole slide where the format names none.
    ``level_sizes`` are (width, height) of every level in its own pixels, ``downsamples`` level-0 pixels a pixel, by
    level. ``mpp`` is um a level-0 pixel, (x, y); ``background`` RGB. ``fingerprint`` names the content (see
    :func:`sampath_wsi.content.sample`).
    """

    path: Path
    vendor: str
    size_level0_px: tuple[int, int]
    level_sizes: tuple[tuple[int, int], ...]
    downsamples: tuple[float, ...]
    mpp: tuple[float, float]
    mpp_source: MppSource
    bounds_level0_px: tuple[int, int, int, int]
    background: tuple[int, int, int]
    fingerprint: str

    @property
    def qupath_offset_level0_px(self) -> tuple[int, int]:
        """Offset that QuPath subtracts from level-0 coordinates: the bounds' corner if it crops to them, else 0."""
        return self.bounds_level0_px[:2] if self.vendor in _CROPPED_BY_QUPATH else (0, 0)

    def describe(self, slide_id: str) -> SlideRecord:
        """Return the record of this slide that goes into every store."""
        return SlideRecord(
            id=slide_id,
            name=self.path.name,
            vendor=self.vendor,
            fingerprint=self.fingerprint,
            qupath_offset_level0_px=self.qupath_offset_level0_px,
        )


def inspect_slide(
    path: Path, *, mpp: tuple[float, float] | None = None, mpp_source: MppSource = "sample sheet"
) -> SlideInfo:
    """Open a slide, describe it, and close it.

    Parameters
    ----------
    path
        The slide's file.
    mpp
        Micrometres a level-0 pixel, (x, y), to use in place of the metadata.
    mpp_source
        Where ``mpp`` comes from, if given; else where a person can give it, which the message names.

    Raises
    ------
    SlideError
        If the slide cannot be opened, or its resolution is missing or implausible and not overridden: metadata are
        held to what scanners have, ``mpp`` to what is possible.
    """
    path = Path(path)
    with open_slide(path) as handle:
        properties = _properties(handle)
        _check_levels(path, handle, properties)
        if properties.get(openslide.PROPERTY_NAME_VENDOR) == _PLAIN_TIFF:
            check_planes(path)
        if mpp is None:
            mpp = _mpp_of_metadata(path, properties, handle.dimensions, _MPP_REMEDIES[mpp_source])
            mpp_source = "metadata"
        elif not _within(mpp, _POSSIBLE_MPP):
            what = f"the {mpp_source} gives {mpp[0]:g} x {mpp[1]:g} um/px, which no scanner has"
            raise SlideError(f"{path}: {what}", _MPP_REMEDIES[mpp_source])
        size = handle.dimensions
        return SlideInfo(
            path=path,
            vendor=properties.get(openslide.PROPERTY_NAME_VENDOR, "unknown"),
            size_level0_px=size,
            level_sizes=tuple(handle.level_dimensions),
            downsamples=tuple(handle.level_downsamples),
            mpp=mpp,
            mpp_source=mpp_source,
            bounds_level0_px=_bounds(properties, size),
            background=_background(properties),
            fingerprint=sample(path),
        )


def open_slide(path: Path) -> openslide.OpenSlide:
    """Open a slide with OpenSlide.

    Raises
    ------
    SlideError
        If it cannot be opened.
    """
    if not path.exists():
        raise SlideError(f"{path}: there is no such slide", "Check the path.")
    if path.is_dir():
        raise SlideError(
            f"{path}: this is a directory, not a slide", "Name the slide's file (for DICOM, one of its .dcm)."
        )
    if path.stat().st_size == 0:
        raise SlideError(f"{path}: the file is empty", "Copy it again.")
    try:
        return openslide.OpenSlide(path)
    except openslide.OpenSlideUnsupportedFormatError as error:
        raise SlideError(
            f"{path}: not a slide that OpenSlide knows", "Check that it is complete, or convert it to a pyramidal TIFF."
        ) from error
    except (openslide.OpenSlideError, OSError) as error:
        raise SlideError(f"{path}: cannot be opened: {error}", "Copy or export it again.") from error


def _properties(handle: openslide.OpenSlide) -> dict[str, str]:
    """Return the properties of a slide; damaged slides name some that they do not have, which are left out."""
    return {name: value for name in handle.properties if (value := handle.properties.get(name)) is not None}


def _check_levels(path: Path, handle: openslide.OpenSlide, properties: dict[str, str]) -> None:
    """Refuse slides that would crash OpenSlide, which aborts if it gets no memory for a tile or a level's index."""
    width, height = handle.dimensions
    for level, (level_width, level_height) in enumerate(handle.level_dimensions):
        remedy = "The file is damaged: copy or export it again."
        downsample = min(width / level_width, height / level_height)
        # Small levels are rounded to whole pixels, and some scanners round to whole tiles.
        for length, whole in ((level_width, width), (level_height, height)):
            if abs(length - whole / downsample) > 2 + 0.2 * length:
                raise SlideError(
                    f"{path}: level {level} says that it has {level_width} x {level_height} px, "
                    f"which are not the proportions of the slide ({width} x {height} px)",
                    remedy,
                )
        sides = [properties.get(f"openslide.level[{level}].tile-{side}", "0") for side in ("width", "height")]
        if math.prod(int(side) if side.isdigit() else 0 for side in sides) > _MAX_TILE_PX:
            raise SlideError(f"{path}: level {level} says that its tiles have {' x '.join(sides)} px", remedy)


def _within(mpp: tuple[float, float], limits: tuple[float, float]) -> bool:
    return all(limits[0] <= value <= limits[1] for value in mpp)


def _mpp_of_metadata(
    path: Path, properties: dict[str, str], size_px: tuple[int, int], remedy: str
) -> tuple[float, float]:
    try:
        mpp = float(properties[openslide.PROPERTY_NAME_MPP_X]), float(properties[openslide.PROPERTY_NAME_MPP_Y])
    except (KeyError, ValueError):
        power = properties.get(openslide.PROPERTY_NAME_OBJECTIVE_POWER)
        hint = f" (it names a {power}x objective only)" if power else ""
        raise SlideError(f"{path}: its metadata hold no resolution (mpp){hint}", remedy) from None
    width_mm, height_mm = (length * value / 1000 for length, value in zip(size_px, mpp, strict=True))
    if not _within(mpp, _PLAUSIBLE_MPP) or max(width_mm, height_mm) > _LONGEST_SIDE_MM:
        what = f"its metadata give {mpp[0]:g} x {mpp[1]:g} um/px, which no scanner has"
        raise SlideError(f"{path}: {what} ({width_mm:.3g} x {height_mm:.3g} mm)", remedy)
    return mpp


def _bounds(properties: dict[str, str], size: tuple[int, int]) -> tuple[int, int, int, int]:
    names = (
        openslide.PROPERTY_NAME_BOUNDS_X,
        openslide.PROPERTY_NAME_BOUNDS_Y,
        openslide.PROPERTY_NAME_BOUNDS_WIDTH,
        openslide.PROPERTY_NAME_BOUNDS_HEIGHT,
    )
    try:
        x, y, width, height = (int(properties[name]) for name in names)
    except (KeyError, ValueError):
        return 0, 0, size[0], size[1]
    x, y = min(max(x, 0), size[0] - 1), min(max(y, 0), size[1] - 1)
    return x, y, max(1, min(width, size[0] - x)), max(1, min(height, size[1] - y))


def _background(properties: dict[str, str]) -> tuple[int, int, int]:
    text = properties.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR, "FFFFFF")
    try:
        red, green, blue = bytes.fromhex(text)
    except ValueError:
        return 255, 255, 255
    return red, green, blue
