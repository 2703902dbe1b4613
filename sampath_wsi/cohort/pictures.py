"""The pictures on the page: smaller the more slides there are, and part of it as data URIs."""

from __future__ import annotations

import base64
import io
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from sampath_wsi.results import SlideResults
from sampath_wsi.stages.report import edges, scale_bar

# Of all pictures together, before base64 makes them a third larger: browsers open that at once.
BUDGET_BYTES = 24_000_000
_LARGEST_PX = 800
_SMALLEST_PX = 64
_ICON_PX = 72
# Room for a picture on the page: more of its pixels than that are for screens with small pixels, and for the printer.
_SHOWN_PX = (560, 420)
# About the size of a pixel of densely stained tissue with its classes; a picture that takes more is made smaller.
_BYTES_PER_PX = 0.35
_PHOTO_QUALITY = 72
_OPACITY = 0.45
_EDGE_SHADE = 0.6
# Pillow raises these for damaged files.
_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


@dataclass(frozen=True)
class Picture:
    """A slide's picture and its classes, which lie over it as a half transparent layer.

    Parameters
    ----------
    photo, layer, icon
        Data URIs: the slide, its classes (None if there are none to show), and the slide very small.
    bar_percent, bar_text
        Length of the scale bar in percent of the width, and its text; None and empty without a known resolution.
    """

    photo: str
    layer: str | None
    icon: str
    width_px: int
    height_px: int
    bar_percent: float | None
    bar_text: str

    @property
    def shown_px(self) -> tuple[int, int]:
        """Width and height on the page, in CSS pixels."""
        scale = min(1.0, _SHOWN_PX[0] / self.width_px, _SHOWN_PX[1] / self.height_px)
        return max(1, round(self.width_px * scale)), max(1, round(self.height_px * scale))


def embed_all(slides: Sequence[SlideResults], budget_bytes: int = BUDGET_BYTES) -> list[Picture | None]:
    """Read the pictures of slides, at most ``budget_bytes`` in all; None for one without a thumbnail."""
    share = budget_bytes // max(1, len(slides))
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        return list(threads.map(lambda slide: embed(slide, share), slides))


def embed(slide: SlideResults, budget_bytes: int) -> Picture | None:
    """Read the picture of one slide in at most ``budget_bytes``, or as small as it can be; None if that fails."""
    longest = min(_LARGEST_PX, int(math.sqrt(budget_bytes / _BYTES_PER_PX)))
    photo = _read_photo(slide.thumbnail, max(longest, _SMALLEST_PX))
    if photo is None:
        return None
    labels, width_um = _read_classes(slide.thumbnail_classes)
    smallest = min(_SMALLEST_PX, max(photo.size))
    longest = max(smallest, min(longest, max(photo.size)))
    while True:
        small = _resized(photo, longest, Image.Resampling.BILINEAR)
        photo_bytes, layer_bytes = _jpeg(small), _layer(labels, small.size)
        if len(photo_bytes) + len(layer_bytes) <= budget_bytes or longest <= smallest:
            break
        longest = max(smallest, int(longest * 0.85))
    icon = _resized(small, _ICON_PX, Image.Resampling.BOX)
    bar = scale_bar(small.width, width_um / small.width) if width_um else None
    return Picture(
        photo=_uri("jpeg", photo_bytes),
        layer=_uri("png", layer_bytes) if layer_bytes else None,
        icon=_uri("jpeg", _jpeg(icon)),
        width_px=small.width,
        height_px=small.height,
        bar_percent=round(100 * bar[0] / width_um, 2) if bar else None,
        bar_text=bar[1] if bar else "",
    )


def _resized(picture: Image.Image, longest_px: int, method: Image.Resampling) -> Image.Image:
    """Return a picture whose longer side is ``longest_px``; the other one has at least a pixel."""
    scale = longest_px / max(picture.size)
    return picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))), method)


def _read_photo(path: Path, longest_px: int) -> Image.Image | None:
    try:
        with Image.open(path) as file:
            # JPEG's decoder gives an eighth, a quarter or half of the size in a fraction of the time.
            file.draft("RGB", (longest_px, longest_px))
            return file.convert("RGB")
    except _UNREADABLE:
        return None


def _read_classes(path: Path) -> tuple[Image.Image | None, float]:
    """Read the picture of label values and its width in um; None and 0 if it cannot be read."""
    try:
        with Image.open(path) as file:
            if file.mode != "P":
                return None, 0.0
            file.load()
            dpi = float(file.info.get("dpi", (0.0, 0.0))[0])
            return file.copy(), file.width * 25400 / dpi if dpi > 0 else 0.0
    except _UNREADABLE:
        return None, 0.0


def _layer(labels: Image.Image | None, size_px: tuple[int, int]) -> bytes:
    """Draw the classes half transparent, their borders dark and opaque (PNG); empty if there are none."""
    if labels is None or labels.getextrema() == (0, 0):
        return b""
    values = np.asarray(labels.resize(size_px, Image.Resampling.NEAREST))
    entries = labels.getpalette() or []
    colours = np.array([*entries, *[128] * (768 - len(entries))], np.uint8).reshape(256, 3)
    top = int(values.max())
    # With the borders every class takes two entries of the palette.
    outlined = 2 * top < 256
    shown = np.where(edges(values), values + top, values) if outlined else values
    alpha = [0] + [round(255 * _OPACITY)] * top + [255] * top
    dark = np.rint(colours[1 : top + 1] * _EDGE_SHADE).astype(np.uint8)
    picture = Image.fromarray(shown.astype(np.uint8))
    picture.putpalette(np.concatenate([colours[: top + 1], dark] if outlined else [colours]).ravel().tolist())
    return _encoded(picture, "PNG", optimize=True, transparency=bytes(alpha[:256]))


def _jpeg(picture: Image.Image) -> bytes:
    return _encoded(picture, "JPEG", quality=_PHOTO_QUALITY, optimize=True)


def _encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
