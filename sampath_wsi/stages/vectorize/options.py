"""What is drawn of a class map, and how."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from sampath_wsi.errors import ConfigError
from sampath_wsi.qupath import ObjectType
from sampath_wsi.stages.vectorize.drawing import Objects

Frame = Literal["qupath", "slide"]
_DEFAULT_TOLERANCE_MAP_PX = 0.75
# Where QuPath becomes slow; measured with its own reader. It takes seconds to read 100,000 vertices of one polygon.
_MAX_VERTICES = 20_000
_LEAST_MAX_VERTICES = 100
_MANY_OBJECTS: dict[ObjectType, int] = {"annotation": 1_000, "detection": 200_000}


@dataclass(frozen=True)
class VectorizeOptions:
    """How :func:`sampath_wsi.stages.vectorize.stage.vectorize` draws.

    Parameters
    ----------
    tolerance_um
        Simplification cuts off triangles of up to this length squared, in micrometres; 0 follows every pixel. None is
        three quarters of a map pixel, which takes the steps from slanted borders and moves hardly a pixel's centre to
        another class; from a whole pixel on, files are a third smaller and one pixel in 300 changes.
    min_area_um2
        A connected region of a class with less area (default: less than a nucleus) goes to the region around it.
    min_hole_um2
        The same for a region without class: a hole in the tissue.
    objects
        One object a connected region, or one a class.
    object_type
        ``annotation`` (can be edited) or ``detection`` (for many objects; measurement maps colour them).
    frame
        ``qupath``: relative to the slide's bounds where QuPath crops to them; ``slide``: the slide's own level 0.
    max_vertices
        An object of more vertices is cut along a grid into pieces that fit each other; 0 keeps every object whole.
    max_objects
        With more objects there is a warning, with what to do; none is left out. None is what QuPath bears: 1000
        annotations or 200,000 detections. 0 never warns.

    Raises
    ------
    ConfigError
        If one of them makes no sense.
    """

    tolerance_um: float | None = None
    min_area_um2: float = 25.0
    min_hole_um2: float = 25.0
    objects: Objects = "regions"
    object_type: ObjectType = "annotation"
    frame: Frame = "qupath"
    max_vertices: int = _MAX_VERTICES
    max_objects: int | None = None

    def __post_init__(self) -> None:
        for key in ("tolerance_um", "min_area_um2", "min_hole_um2"):
            size = getattr(self, key)
            if size is not None and not (math.isfinite(size) and size >= 0):
                raise ConfigError(f"vectorize: {key} is {size}", "Give a number that is not negative.")
        for key, kind in (("objects", Objects), ("object_type", ObjectType), ("frame", Frame)):
            if getattr(self, key) not in get_args(kind):
                raise ConfigError(
                    f"vectorize: {key} is {getattr(self, key)!r}", f"Choose {' or '.join(get_args(kind))}."
                )
        if self.max_vertices != 0 and self.max_vertices < _LEAST_MAX_VERTICES:
            raise ConfigError(
                f"vectorize: max_vertices is {self.max_vertices}",
                f"Give 0 for no limit, or at least {_LEAST_MAX_VERTICES}.",
            )
        if self.max_objects is not None and self.max_objects < 0:
            raise ConfigError(
                f"vectorize: max_objects is {self.max_objects}", "Give 0 for no warning, or a positive number."
            )

    def tolerance_um_at(self, mpp_map: float) -> float:
        """The tolerance on a map of this resolution."""
        return _DEFAULT_TOLERANCE_MAP_PX * mpp_map if self.tolerance_um is None else self.tolerance_um

    @property
    def warned_objects(self) -> int:
        """More objects than this make a warning; 0 for none ever."""
        return _MANY_OBJECTS[self.object_type] if self.max_objects is None else self.max_objects
