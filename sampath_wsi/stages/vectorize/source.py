"""A segmentation store to be drawn: its map, its classes, and where the map lies in the frame of the file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from sampath_wsi.classes import TissueClass
from sampath_wsi.errors import StoreError
from sampath_wsi.stages.vectorize.chunks import StoreMap
from sampath_wsi.stages.vectorize.drawing import Drawing
from sampath_wsi.stages.vectorize.options import VectorizeOptions
from sampath_wsi.stores.store import Provenance, open_store


@dataclass(frozen=True)
class Source:
    """What is drawn, and how."""

    provenance: Provenance
    class_map: StoreMap
    drawing: Drawing


def open_source(segmentation_path: Path, options: VectorizeOptions) -> Source:
    """Open a segmentation store to draw it.

    Raises
    ------
    StoreError
        If there is no finished segmentation store, its record is damaged, or it does not fit its arrays.
    """
    _, provenance = open_store(segmentation_path, "segmentation")
    class_map = StoreMap(segmentation_path)
    return Source(provenance, class_map, _drawing(provenance, class_map, options))


def _drawing(provenance: Provenance, class_map: StoreMap, options: VectorizeOptions) -> Drawing:
    try:
        classes = TypeAdapter(tuple[TissueClass, ...]).validate_python(provenance.options["classes"])
        crop_x, crop_y = provenance.slide["qupath_offset_level0_px"] if options.frame == "qupath" else (0.0, 0.0)
        fingerprint = str(provenance.slide["fingerprint"])
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        raise StoreError(f"{class_map.path}: its record is damaged ({error!r})", "Stitch the slide again.") from None
    labels, probability = class_map.arrays
    if probability.shape != (len(classes), *labels.shape):
        raise StoreError(
            f"{class_map.path}: probabilities {probability.shape} do not fit {len(classes)} classes on a map of "
            f"{labels.shape}",
            "Stitch the slide again.",
        )
    scale_x, scale_y, offset_x, offset_y = provenance.grid.map_to_level0_px()
    return Drawing(
        classes=classes,
        fingerprint=fingerprint,
        scale_level0_px_per_map_px=(scale_x, scale_y),
        offset_level0_px=(offset_x - float(crop_x), offset_y - float(crop_y)),
        mpp_map=provenance.grid.mpp_map,
        map_width_map_px=class_map.shape[1],
        object_type=options.object_type,
        objects=options.objects,
        far_corner_level0_px=(
            offset_x + provenance.grid.region_width_level0_px - float(crop_x),
            offset_y + provenance.grid.region_height_level0_px - float(crop_y),
        ),
        max_vertices=options.max_vertices,
    )
