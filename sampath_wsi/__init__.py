"""Semantic segmentation of whole-slide images with SAM-Path, from a folder of slides to GeoJSON for QuPath."""

from __future__ import annotations

__version__ = "0.1.0"
