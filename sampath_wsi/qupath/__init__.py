"""GeoJSON as QuPath speaks it: objects written so that every version from 0.4 on loads them, annotations read."""

from sampath_wsi.qupath.annotations import Annotation, read_annotations
from sampath_wsi.qupath.geometry import rounded_for_qupath
from sampath_wsi.qupath.objects import ObjectType, ObjectWriter, encode_object

__all__ = ["Annotation", "ObjectType", "ObjectWriter", "encode_object", "read_annotations", "rounded_for_qupath"]
