"""The overlay picture: slide, classes in their colours, outlines, legend and scale bar. Arrays in, picture out.

Inside the classes the slide is grey: what is light and dark there is tissue, and what has a colour is the class. Over
the pink of H&E pale colours would not be those of the legend.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from sampath_wsi.classes import TissueClass, colour_table

_OPACITY = 0.40
_LEGEND_PX = 480
_MARGIN_PX = 24
_NICE_LENGTHS_UM = [n * 10**k for k in range(6) for n in (1, 2, 5)]


def draw_overlay(
    rgb: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    classes: tuple[TissueClass, ...],
    areas_mm2: NDArray[np.floating],
    *,
    um_per_px: float,
    title: str,
) -> Image.Image:
    """Draw the picture.

    Parameters
    ----------
    rgb
        The slide, ``(height, width, 3)`` uint8.
    labels
        Label values over the same area, of any resolution.
    areas_mm2
        Area of each class, for the legend.
    um_per_px
        Resolution of ``rgb``, for the scale bar.
    """
    height, width = rgb.shape[:2]
    shown = np.asarray(Image.fromarray(labels).resize((width, height), Image.Resampling.NEAREST))
    canvas = Image.new("RGB", (width + _LEGEND_PX, max(height, 80 + 48 * (len(classes) + 2))), "white")
    canvas.paste(Image.fromarray(_tint(rgb, shown, classes)), (0, 0))
    draw = ImageDraw.Draw(canvas)
    _draw_legend(draw, width + _MARGIN_PX, classes, areas_mm2, title)
    _draw_scale_bar(draw, width, height, um_per_px)
    return canvas


def _tint(rgb: NDArray[np.uint8], labels: NDArray[np.uint8], classes: tuple[TissueClass, ...]) -> NDArray[np.uint8]:
    colours = colour_table(classes).astype(np.float32)
    grey = np.asarray(Image.fromarray(rgb).convert("L"), np.float32)
    picture = rgb.astype(np.float32)
    inside = labels > 0
    picture[inside] = grey[inside, None] * (1 - _OPACITY) + colours[labels[inside]] * _OPACITY
    edge = edges(labels)
    picture[edge] = colours[labels[edge]] * 0.7
    return np.rint(picture).astype(np.uint8)


def classes_of(thumbnail: Path) -> Path:
    """Where the classes on a thumbnail lie: a PNG of label values, with the colours and its resolution in it."""
    return thumbnail.with_name(f"{thumbnail.stem}-classes.png")


def label_picture(labels: NDArray[np.uint8], classes: tuple[TissueClass, ...], size_px: tuple[int, int]) -> Image.Image:
    """Label values as a picture of ``(width, height)`` px with the classes' colours as its palette."""
    picture = Image.fromarray(labels).resize(size_px, Image.Resampling.NEAREST)
    picture.putpalette(colour_table(classes).ravel().tolist())
    return picture


def edges(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels of a class that touch another class to the right or below, or no class on any side."""
    edge = np.zeros(labels.shape, bool)
    across, down = labels[:, 1:] != labels[:, :-1], labels[1:] != labels[:-1]
    edge[:, :-1] |= across
    edge[:, 1:] |= across
    edge[:-1] |= down
    edge[1:] |= down
    return edge & (labels > 0)


def _draw_legend(
    draw: ImageDraw.ImageDraw, left: int, classes: tuple[TissueClass, ...], areas_mm2: NDArray[np.floating], title: str
) -> None:
    large, small = _font(24), _font(18)
    room = _LEGEND_PX - 2 * _MARGIN_PX
    while draw.textlength(title, font=large) > room and len(title) > 1:
        title = title.rstrip("…")[:-1] + "…"
    draw.text((left, 20), title, fill="black", font=large)
    total = float(areas_mm2.sum())
    for row, (entry, area) in enumerate(zip(classes, areas_mm2, strict=True)):
        y = 76 + 48 * row
        draw.rectangle((left, y, left + 28, y + 28), fill=entry.color, outline="black")
        draw.text((left + 40, y + 2), entry.name, fill="black", font=small)
        share = 100 * float(area) / total if total else 0.0
        draw.text((left + room, y + 2), f"{area:.3f} mm²  {share:4.1f} %", fill="black", font=small, anchor="ra")
    y = 76 + 48 * len(classes)
    draw.line((left, y, left + room, y), fill="black")
    draw.text((left + 40, y + 8), "Tissue", fill="black", font=small)
    draw.text((left + room, y + 8), f"{total:.3f} mm²   100 %", fill="black", font=small, anchor="ra")


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    # Pillow's built-in font has neither µ nor ². To import matplotlib for its font would take longer than the picture.
    file = distribution("matplotlib").locate_file("matplotlib/mpl-data/fonts/ttf/DejaVuSans.ttf")
    return ImageFont.truetype(str(file), size)


def scale_bar(width_px: float, um_per_px: float) -> tuple[int, str] | None:
    """The longest round length that fits a quarter of a picture: in um, and as people write it; None if none does."""
    fitting = [length for length in _NICE_LENGTHS_UM if length <= um_per_px * width_px / 4]
    if not fitting:
        return None
    length_um = max(fitting)
    return length_um, f"{length_um} µm" if length_um < 1000 else f"{length_um // 1000} mm"


def _draw_scale_bar(draw: ImageDraw.ImageDraw, width: int, height: int, um_per_px: float) -> None:
    bar = scale_bar(width, um_per_px)
    if bar is None:
        return
    length_px = round(bar[0] / um_per_px)
    x0, y0 = _MARGIN_PX, height - _MARGIN_PX
    draw.rectangle((x0 - 10, y0 - 44, x0 + length_px + 10, y0 + 12), fill="white")
    draw.rectangle((x0, y0 - 6, x0 + length_px, y0), fill="black")
    draw.text((x0 + length_px / 2, y0 - 12), bar[1], fill="black", font=_font(22), anchor="ms")
