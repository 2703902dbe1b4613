"""The overlay picture: its colours are the legend's, whatever the stain, and what is dark stays dark."""

from __future__ import annotations

import numpy as np

from sampath_wsi.classes import TissueClass
from sampath_wsi.stages.report import draw_overlay

PINK, NUCLEUS = (230, 150, 200), (90, 50, 130)
STROMA = TissueClass(name="Stroma", color=(150, 200, 150))


def test_the_slide_is_grey_under_a_class_and_itself_outside() -> None:
    rgb = np.full((400, 400, 3), PINK, np.uint8)
    rgb[100:110, 250:260] = NUCLEUS
    labels = np.zeros((400, 400), np.uint8)
    labels[:, 200:] = 1
    picture = np.asarray(draw_overlay(rgb, labels, (STROMA,), np.array([0.1]), mpp=0.5, title="a"), np.int64)
    red, green, blue = picture[50, 300]
    # Of the class's colour nothing is left but its hue: pink would have made it grey.
    assert green - red == green - blue == 20
    assert tuple(picture[50, 100]) == PINK
    assert picture[105, 255].sum() < picture[50, 300].sum() - 100
