"""Options of the stages of a slide."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from sampath_wsi.options.base import MACHINE, Device, Options

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Frame = Literal["qupath", "slide"]
Objects = Literal["regions", "classes"]
ObjectType = Literal["annotation", "detection"]
Share = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]

_DEFAULT_TOLERANCE_MAP_PX = 0.75
_LEAST_MAX_VERTICES = 100
# Where QuPath becomes slow, measured with its own reader.
_MANY_OBJECTS: dict[ObjectType, int] = {"annotation": 1_000, "detection": 200_000}


class TileOptions(Options):
    """How a slide is cut into tiles."""

    overlap: Count | None = None
    """overlap of neighbouring tiles in model pixels; by default the model's own"""
    min_tissue: Share = 0
    """a number from 0 to 1; tiles with no more than this share of tissue are left out"""
    tissue: bool = True
    """find the tissue; otherwise the whole slide is segmented"""
    tissue_mpp: Annotated[float, Field(ge=0.5)] = 8
    """resolution of the tissue mask in micrometres a pixel, at least 0.5"""
    min_tissue_area: Amount = 5000
    """smaller islands of tissue are left out, in square micrometres"""
    min_tissue_hole: Amount = 5000
    """smaller holes of the tissue are filled, in square micrometres"""
    max_magnification: Annotated[float, Field(ge=1)] = Field(default=4, json_schema_extra=MACHINE)
    """slides whose mpp is more than this many times the model's are refused"""


class InferOptions(Options):
    """How the model is run. The precision that is asked for changes the result; device, batch and parts do not."""

    device: Device = "auto"
    """auto, cpu, cuda, cuda:N or mps"""
    precision: Precision = "auto"
    """precision of the encoders: auto (by the device), fp32, bf16 or fp16"""
    batch: Annotated[int, Field(ge=1)] | None = Field(default=None, json_schema_extra=MACHINE)
    """tiles a batch; by default chosen by the device"""
    parts: Annotated[int, Field(ge=1, le=1000)] = Field(default=1, json_schema_extra=MACHINE)
    """how many jobs, each on a GPU of its own, share the inference of one slide"""


class StitchOptions(Options):
    """How tiles become one map."""

    dtype: Literal["uint8", "float32"] = "uint8"
    """type of the stored probabilities: uint8 (p = v / 255) or float32"""
    mask_to_tissue: bool = True
    """leave pixels outside the tissue without a class"""
    dask: Annotated[str, Field(pattern=r"^(tcp|tls)://\S+:[0-9]+$")] | None = Field(
        default=None, json_schema_extra=MACHINE
    )
    """address of a Dask scheduler on which maps are stitched (tcp://host:8786); by default on this machine"""


class VectorizeOptions(Options):
    """How the map becomes polygons.

    Simplification cuts off triangles of up to the tolerance squared; three quarters of a map pixel take the steps from
    slanted borders and move hardly a pixel's centre to another class.
    """

    tolerance: Amount | None = None
    """simplification of outlines in micrometres (0 keeps every pixel corner); by default 3/4 of a map pixel"""
    min_area: Amount = 25
    """islands smaller than this, in square micrometres, are merged into their surroundings"""
    min_hole: Amount = 25
    """holes smaller than this, in square micrometres, are filled"""
    objects: Objects = "regions"
    """regions (one object a connected region) or classes (one object a class)"""
    object_type: ObjectType = "annotation"
    """annotation or detection (detections are faster where there are thousands)"""
    frame: Frame = "qupath"
    """qupath (as QuPath crops slides of some formats to their bounds) or slide (never cropped)"""
    max_vertices: Count = 20_000
    """objects of more vertices are cut into pieces that fit each other; 0 for no limit, else at least 100"""
    max_objects: Count | None = None
    """more objects than this are warned of; 0 never warns; by default 1000 annotations or 200000 detections"""
    tiles: bool = False
    """write tiles with their mean probabilities, for QuPath's measurement maps, tiles.geojson.gz"""

    @field_validator("max_vertices")
    @classmethod
    def _limit_is_usable(cls, value: int) -> int:
        if 0 < value < _LEAST_MAX_VERTICES:
            raise ValueError(f"{value} cannot be used: give 0 for no limit, or at least {_LEAST_MAX_VERTICES}")
        return value

    def tolerance_um_at(self, mpp_map: float) -> float:
        """Return the tolerance in micrometres on a map of this resolution."""
        return _DEFAULT_TOLERANCE_MAP_PX * mpp_map if self.tolerance is None else self.tolerance

    @property
    def warned_objects(self) -> int:
        """More objects than this make a warning; 0 for none ever."""
        return _MANY_OBJECTS[self.object_type] if self.max_objects is None else self.max_objects


class ImageOptions(Options):
    """Pictures to open beside the slide, as OME-TIFF."""

    classes: bool = False
    """write the class map, classes.ome.tif"""
    probability: Annotated[str, Field(min_length=1)] | None = None
    """the class whose probability is written (in percent), probability.ome.tif"""
    entropy: bool = False
    """write how uncertain the model is (in percent), entropy.ome.tif"""
    style: Literal["colors", "labels"] = "colors"
    """class map in the classes' colours, or as numbers (labels; 0 is none)"""
