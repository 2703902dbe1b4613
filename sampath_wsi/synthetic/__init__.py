"""H&E-like slides of any size with a known class map: for demonstration, tests, benchmarks and training."""

from __future__ import annotations

from sampath_wsi.synthetic.scene import CLASSES, TRUTH_DOWNSAMPLE, Scene
from sampath_wsi.synthetic.slide import Painter, make_slide

__all__ = ["CLASSES", "TRUTH_DOWNSAMPLE", "Painter", "Scene", "make_slide"]
