"""A small picture of a test: the image, the true outlines, the predicted outlines, side by side."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from sampath_wsi.classes import TissueClass, colour_table
from sampath_wsi.stages.report import edges

_PANEL_PX = 640
_GAP_PX = 8


def side_by_side(
    image: NDArray[np.uint8], truth: NDArray[np.uint8], predicted: NDArray[np.uint8], classes: tuple[TissueClass, ...]
) -> Image.Image:
    """Draw image ``(H, W, 3)``, true and predicted labels ``(H, W)``; what is not labelled is faded in the truth."""
    height, width = truth.shape
    scale = min(1.0, _PANEL_PX / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))
    canvas = Image.new("RGB", (3 * size[0] + 2 * _GAP_PX, size[1]), "white")
    shrunk = [
        np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST)) for labels in (truth, predicted)
    ]
    panels = [small, *(_outlined(small, labels, classes) for labels in shrunk)]
    for position, panel in enumerate(panels):
        canvas.paste(Image.fromarray(panel), (position * (size[0] + _GAP_PX), 0))
    return canvas


def _outlined(
    image: NDArray[np.uint8], labels: NDArray[np.uint8], classes: tuple[TissueClass, ...]
) -> NDArray[np.uint8]:
    colours = colour_table(classes)
    picture = np.where((labels > 0)[..., None], image, image // 2 + 128).astype(np.uint8)
    # Three pixels wide; where two outlines meet, that of the later class is on top (a gland's on its background's).
    lines = ndimage.maximum_filter(np.where(edges(labels), labels, 0), 3)
    picture[lines > 0] = colours[lines[lines > 0]]
    return picture
