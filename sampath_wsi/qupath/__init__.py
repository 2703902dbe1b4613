"""QuPath's GeoJSON: objects written for every version from 0.4 on, and annotations read."""

from sampath_wsi.qupath.annotations import Annotation, flat_parts, read_annotations
from sampath_wsi.qupath.objects import DECIMALS, ObjectType, ObjectWriter, encode_object, rounded_for_qupath

__all__ = [
    "DECIMALS",
    "Annotation",
    "ObjectType",
    "ObjectWriter",
    "encode_object",
    "flat_parts",
    "read_annotations",
    "rounded_for_qupath",
]
