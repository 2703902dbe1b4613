"""Semantic segmentation of whole-slide images with SAM-Path, from a folder of slides to GeoJSON for QuPath.

The names below are loaded on first use, so that importing the package costs nothing. See docs/python.md.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sampath_wsi.classes import TissueClass
    from sampath_wsi.errors import SampathError
    from sampath_wsi.model.ready import CustomModel, read_card, ready_model, tile_options
    from sampath_wsi.pipeline import segment_slide
    from sampath_wsi.results import Segmentation, read_results
    from sampath_wsi.slides import SlideReader, inspect_slide
    from sampath_wsi.stages.tile import tile_slide

__version__ = "0.1.0"

_HOMES = {
    "CustomModel": "model.ready",
    "SampathError": "errors",
    "Segmentation": "results",
    "SlideReader": "slides",
    "TissueClass": "classes",
    "inspect_slide": "slides",
    "read_card": "model.ready",
    "read_results": "results",
    "ready_model": "model.ready",
    "segment_slide": "pipeline",
    "tile_options": "model.ready",
    "tile_slide": "stages.tile",
}

__all__ = [
    "CustomModel",
    "SampathError",
    "Segmentation",
    "SlideReader",
    "TissueClass",
    "__version__",
    "inspect_slide",
    "read_card",
    "read_results",
    "ready_model",
    "segment_slide",
    "tile_options",
    "tile_slide",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
