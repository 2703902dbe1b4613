"""QuPath's GeoJSON: objects written for every version from 0.4 on, and annotations read."""

from sampath_wsi.qupath.annotations import Annotation, read_annotations
from sampath_wsi.qupath.objects import DECIMALS, ObjectType, ObjectWriter, encode_object, rounded_for_qupath
from sampath_wsi.qupath.shapes import flat_parts

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
