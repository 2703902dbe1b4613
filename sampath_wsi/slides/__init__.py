"""A slide: its metadata (:class:`SlideInfo`), and windows of it at any resolution (:class:`SlideReader`)."""

from __future__ import annotations

from sampath_wsi.slides.info import SlideInfo, inspect_slide
from sampath_wsi.slides.reader import SlideReader

__all__ = ["SlideInfo", "SlideReader", "inspect_slide"]
