"""Warnings of doubtful results: about a slide, and about the classes found on it.

Nothing here stops a run. Limits are exclusive: a value that equals one gives no warning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# Resolutions coarser than this many times the model's are still tiled, with a warning: the output of a network
# trained on nuclei is worth little on a thumbnail.
UPSAMPLING_AT_MOST = 1.5
# Stained tissue and glass are brighter in at least one channel, fluorescence is darker.
DARK_BELOW = 64
# Grey pictures have 0 to 3, by compression; the palest stains far more.
COLOUR_AT_LEAST = 8
TISSUE_SHARE = (0.001, 0.95)
SIDE_MM = (0.5, 150.0)
CLASS_AT_MOST_PERCENT = 98.0
_OUTLINE = "check the tissue's outline"


@dataclass(frozen=True)
class SlideLook:
    """Properties of a whole slide, as measured by stage 1.

    Parameters
    ----------
    side_mm
        The longer side of the segmented area.
    mpp, mpp_model
        The coarser of the slide's two resolutions and the model's, um/px.
    tissue_share
        The share that was found to be tissue, or that a mask says is tissue; None where everything counts as tissue.
    brightness
        Median of the brightest channel; None where the slide was not looked at.
    colour
        How far the channels of its most coloured tissue lie apart, in grey values; None without tissue, too.
    """

    side_mm: float
    mpp: float
    mpp_model: float
    tissue_share: float | None = None
    brightness: float | None = None
    colour: float | None = None


def doubts_of_slide(look: SlideLook) -> list[str]:
    """Return the warnings about a slide."""
    found = []
    if look.brightness is not None and look.brightness < DARK_BELOW:
        found.append("the slide is dark, as fluorescence is: a model of stained tissue knows nothing of it")
    elif look.colour is not None and look.colour < COLOUR_AT_LEAST:
        found.append("the slide has no colour: a model of stained tissue knows nothing of it")
    if look.mpp / look.mpp_model > UPSAMPLING_AT_MOST:
        found.append(
            f"the slide's finest resolution ({look.mpp:g} um/px) is {look.mpp / look.mpp_model:.3g} times coarser than "
            f"what the model was trained on ({look.mpp_model:g} um/px): do not rely on the result"
        )
    least, most = SIDE_MM
    if not least <= look.side_mm <= most:
        limit = f"under {least:g} mm" if look.side_mm < least else f"over {most:g} mm"
        found.append(
            f"the slide's longer side is {look.side_mm:.3g} mm, {limit}: check its resolution ({look.mpp:g} um/px)"
        )
    least, most = TISSUE_SHARE
    if look.tissue_share is not None and 0 < look.tissue_share < least:
        found.append(f"{100 * look.tissue_share:.2g} % of the slide is tissue, under {100 * least:g} %: {_OUTLINE}")
    if look.tissue_share is not None and look.tissue_share > most:
        found.append(f"{100 * look.tissue_share:.1f} % of the slide is tissue, over {100 * most:g} %: {_OUTLINE}")
    return found


def doubts_of_classes(percents: Mapping[str, float]) -> list[str]:
    """Return the warnings about the share of each class in the tissue, in percent; of a single class there are none."""
    return [
        f"{percent:.1f} % of the tissue is {name}, over {CLASS_AT_MOST_PERCENT:g} %: look at the overlay"
        for name, percent in percents.items()
        if percent > CLASS_AT_MOST_PERCENT and len(percents) > 1
    ]
