"""A slide: what it says of itself (:class:`SlideInfo`), and regions of it at any resolution (:class:`SlideReader`).

OpenSlide opens, describes and reads. A reader is opened inside the worker that uses it, keeps one handle a thread
(a handle that met an error stays unusable, so it is opened anew), and composes transparent pixels and pixels outside
the slide onto the slide's background.
"""

from __future__ import annotations

import hashlib
import math
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openslide
from numpy.typing import NDArray
from PIL import Image

from sampath_wsi.errors import SlideError
from sampath_wsi.geometry import Box, MppSource

# Resolutions outside these are mistakes of the metadata, not microscopes (a 100x lens gives about 0.1 um/px;
# the coarsest level that anybody stores as a slide of its own is some tens of um/px).
PLAUSIBLE_MPP = (0.02, 100.0)
# Readers that crop to openslide.bounds-*: QuPath does so for these formats in every version.
_CROPPED_BY_QUPATH = ("mirax", "leica")
_SAMPLE_BYTES = 1 << 16
_OVERVIEW_READ_PX = 2048


@dataclass(frozen=True)
class SlideInfo:
    """What is known of a slide before a pixel is read.

    ``bounds_level0_px`` is the non-empty region ``(x, y, width, height)``: the whole slide where the format names none.
    ``downsamples`` are level-0 pixels a pixel, by level. ``fingerprint`` names the content (see :func:`fingerprint`).
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
        """What QuPath subtracts from level-0 coordinates: the corner of the bounds where it crops to them."""
        return self.bounds_level0_px[:2] if self.vendor in _CROPPED_BY_QUPATH else (0, 0)

    def describe(self, slide_id: str) -> dict[str, Any]:
        """The record of this slide that goes into every store."""
        return {
            "id": slide_id,
            "name": self.path.name,
            "vendor": self.vendor,
            "fingerprint": self.fingerprint,
            "qupath_offset_level0_px": list(self.qupath_offset_level0_px),
        }


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
        Where ``mpp`` comes from, if given.

    Raises
    ------
    SlideError
        If the slide cannot be opened, or its resolution is missing or implausible and not overridden.
    """
    path = Path(path)
    with _open(path) as handle:
        properties = dict(handle.properties)
        if mpp is None:
            mpp, mpp_source = _mpp_of_metadata(path, properties), "metadata"
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
            fingerprint=fingerprint(path, properties),
        )


def fingerprint(path: Path, properties: dict[str, str]) -> str:
    """A name of the slide's content that is quick to compute also for gigabytes and for formats of many files.

    SHA-256 over the file's size, 64 KiB samples spread over it, and OpenSlide's own quick hash (which covers formats
    whose pixels lie in other files).
    """
    size = path.stat().st_size
    digest = hashlib.sha256(f"{size} {properties.get(openslide.PROPERTY_NAME_QUICKHASH1, '')}".encode())
    with open(path, "rb") as file:
        for offset in np.linspace(0, max(0, size - _SAMPLE_BYTES), 33).astype(int):
            file.seek(int(offset))
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


class SlideReader:
    """Regions of a slide at any resolution; safe to share between threads."""

    def __init__(self, info: SlideInfo) -> None:
        self.info = info
        self._local = threading.local()

    def read(self, box_level0_px: Box, size_px: tuple[int, int], *, what: str = "a region") -> NDArray[np.uint8]:
        """Read a rectangle and resample it to ``size_px`` (width, height).

        The best level that is at least as fine as wanted is read; finer pixels are averaged over their area,
        coarser ones interpolated.

        Parameters
        ----------
        box_level0_px
            The rectangle; corners may be fractional and may lie outside the slide.
        what
            Names the rectangle in an error ("tile 17").

        Returns
        -------
        ``(height, width, 3)`` uint8, RGB.

        Raises
        ------
        SlideError
            If reading fails twice, the second time with a fresh handle.
        """
        wanted = min(box_level0_px.width / size_px[0], box_level0_px.height / size_px[1])
        level = self._level_for(wanted)
        downsample = self.info.downsamples[level]
        exact = box_level0_px.scaled(1 / downsample)
        plan = _Resampling.plan(exact, size_px)
        corner_level0_px = round(plan.left * downsample), round(plan.top * downsample)
        rgba = self._read_level(corner_level0_px, level, plan.size_read_px, what)
        return np.asarray(plan.apply(_over_background(rgba, self.info.background)))

    def overview(self, box_level0_px: Box, size_px: tuple[int, int]) -> NDArray[np.uint8]:
        """Read a large rectangle at low resolution, in pieces of bounded size (some slides have a single level).

        Returns
        -------
        ``(height, width, 3)`` uint8, RGB.
        """
        width, height = size_px
        px_level0_px = box_level0_px.width / width, box_level0_px.height / height
        level = self._level_for(min(px_level0_px))
        piece = max(8, int(_OVERVIEW_READ_PX * self.info.downsamples[level] / max(px_level0_px)))
        whole = np.empty((height, width, 3), np.uint8)
        for top in range(0, height, piece):
            for left in range(0, width, piece):
                down, across = min(piece, height - top), min(piece, width - left)
                part = Box(
                    box_level0_px.x + left * px_level0_px[0],
                    box_level0_px.y + top * px_level0_px[1],
                    across * px_level0_px[0],
                    down * px_level0_px[1],
                )
                whole[top : top + down, left : left + across] = self.read(part, (across, down), what="the overview")
        return whole

    def close(self) -> None:
        """Close the calling thread's handle."""
        handle = getattr(self._local, "handle", None)
        if handle is not None:
            handle.close()
            self._local.handle = None

    def _level_for(self, wanted_downsample: float) -> int:
        # A thousandth of tolerance: downsamples such as 4.0003 (odd level sizes) still serve a wanted 4.
        fitting = [i for i, d in enumerate(self.info.downsamples) if d <= wanted_downsample * 1.001]
        return max(fitting, key=lambda i: self.info.downsamples[i], default=0)

    def _read_level(self, corner: tuple[int, int], level: int, size: tuple[int, int], what: str) -> Image.Image:
        try:
            return self._handle().read_region(corner, level, size)
        except (openslide.OpenSlideError, OSError):
            self.close()
        try:
            return self._handle().read_region(corner, level, size)
        except (openslide.OpenSlideError, OSError) as error:
            self.close()
            raise SlideError(
                f"{self.info.path}: cannot read {what} (level {level}, level-0 pixel {corner}, "
                f"{size[0]} x {size[1]} px): {error}",
                "The file is damaged there: copy or export it again.",
            ) from error

    def _handle(self) -> openslide.OpenSlide:
        handle = getattr(self._local, "handle", None)
        if handle is None:
            handle = self._local.handle = _open(self.info.path)
        return handle


def _open(path: Path) -> openslide.OpenSlide:
    if not path.exists():
        raise SlideError(f"{path}: there is no such slide", "Check the path in the sample sheet.")
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


def _mpp_of_metadata(path: Path, properties: dict[str, str]) -> tuple[float, float]:
    remedy = "Give the true value in the column 'mpp' of the sample sheet (or with --mpp)."
    try:
        mpp = float(properties[openslide.PROPERTY_NAME_MPP_X]), float(properties[openslide.PROPERTY_NAME_MPP_Y])
    except (KeyError, ValueError):
        power = properties.get(openslide.PROPERTY_NAME_OBJECTIVE_POWER)
        hint = f" (it names a {power}x objective only)" if power else ""
        raise SlideError(f"{path}: its metadata hold no resolution (mpp){hint}", remedy) from None
    low, high = PLAUSIBLE_MPP
    if not all(low <= value <= high for value in mpp):
        raise SlideError(f"{path}: its metadata give {mpp[0]:g} x {mpp[1]:g} um/px, which no slide has", remedy)
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


def _over_background(rgba: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    alpha = rgba.getchannel("A")
    if alpha.getextrema() == (255, 255):
        return rgba.convert("RGB")
    base = Image.new("RGB", rgba.size, background)
    base.paste(rgba, mask=alpha)
    return base


@dataclass(frozen=True)
class _Resampling:
    """How a fractional rectangle of a level becomes an image: what to read, and how to average or interpolate it."""

    left: int
    top: int
    size_read_px: tuple[int, int]
    box_in_read_px: tuple[float, float, float, float]
    factors: tuple[int, int]
    """Whole pixels a pixel, (x, y), where the rectangle has no fractions; else (0, 0)."""
    size_px: tuple[int, int]

    @classmethod
    def plan(cls, exact: Box, size_px: tuple[int, int]) -> _Resampling:
        """Plan the reading of ``exact`` (in pixels of a level), to be resampled to ``size_px`` (width, height)."""
        scales = exact.width / size_px[0], exact.height / size_px[1]
        factors = round(scales[0]), round(scales[1])
        corner = round(exact.x), round(exact.y)
        whole = (
            abs(scales[0] - factors[0]) * size_px[0] < 1e-3
            and abs(scales[1] - factors[1]) * size_px[1] < 1e-3
            and max(abs(exact.x - corner[0]), abs(exact.y - corner[1])) < 1e-3
        )
        if whole and min(factors) >= 1:
            size = factors[0] * size_px[0], factors[1] * size_px[1]
            return cls(*corner, size, (0, 0, *size), factors, size_px)
        # A margin, so that the filter finds neighbours also at the rectangle's edges.
        margin = math.ceil(max(*scales, 1.0)) + 1
        left, top = math.floor(exact.x) - margin, math.floor(exact.y) - margin
        size = math.ceil(exact.right) + margin - left, math.ceil(exact.bottom) + margin - top
        box = exact.x - left, exact.y - top, exact.right - left, exact.bottom - top
        return cls(left, top, size, box, (0, 0), size_px)

    def apply(self, image: Image.Image) -> Image.Image:
        """Resample what was read."""
        if self.factors == (1, 1):
            return image
        if self.factors != (0, 0):
            return image.reduce(self.factors)
        # Pillow's box filter gives every touched pixel the same weight; Hamming's tapers at the fractional edges.
        left, top, right, bottom = self.box_in_read_px
        shrinking = min((right - left) / self.size_px[0], (bottom - top) / self.size_px[1]) >= 1
        method = Image.Resampling.HAMMING if shrinking else Image.Resampling.BILINEAR
        return image.resize(self.size_px, method, box=self.box_in_read_px)
