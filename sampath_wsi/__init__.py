"""Semantic segmentation of whole-slide images with SAM-Path, from a folder of slides to GeoJSON for QuPath.

The names below are loaded on first use, so that importing the package costs nothing. See docs/python.md.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sampath_wsi.api.models import OwnModel, read_card, ready_model, tile_options
    from sampath_wsi.api.results import Segmentation, read_results
    from sampath_wsi.api.segment import segment_slide
    from sampath_wsi.classes import TissueClass
    from sampath_wsi.errors import SampathError
    from sampath_wsi.slide import SlideReader, inspect_slide
    from sampath_wsi.tile.stage import tile_slide

__version__ = "0.1.0"

_HOMES = {
    "OwnModel": "api.models",
    "SampathError": "errors",
    "Segmentation": "api.results",
    "SlideReader": "slide",
    "TissueClass": "classes",
    "inspect_slide": "slide",
    "read_card": "api.models",
    "read_results": "api.results",
    "ready_model": "api.models",
    "segment_slide": "api.segment",
    "tile_options": "api.models",
    "tile_slide": "tile.stage",
}

__all__ = [
    "OwnModel",
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
