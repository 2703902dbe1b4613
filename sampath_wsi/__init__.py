"""Semantic segmentation of whole-slide images with SAM-Path, from a folder of slides to GeoJSON for QuPath.

The names below are loaded on first use, so that importing the package costs nothing. See docs/python.md.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sampath_wsi.classes import TissueClass
    from sampath_wsi.errors import SampathError
    from sampath_wsi.model.ready import CustomModel
    from sampath_wsi.pipeline import segment_slide
    from sampath_wsi.results import SlideResults, read_results
    from sampath_wsi.slides import SlideReader, inspect_slide

__version__ = "0.1.0"

_HOMES = {
    "CustomModel": "model.ready",
    "SampathError": "errors",
    "SlideReader": "slides",
    "SlideResults": "results",
    "TissueClass": "classes",
    "inspect_slide": "slides",
    "read_results": "results",
    "segment_slide": "pipeline",
}

__all__ = [
    "CustomModel",
    "SampathError",
    "SlideReader",
    "SlideResults",
    "TissueClass",
    "__version__",
    "inspect_slide",
    "read_results",
    "segment_slide",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
