"""What is drawn of a class map, and how."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from sampath_wsi.errors import ConfigError
from sampath_wsi.qupath import ObjectType
from sampath_wsi.stages.vectorize.source import Frame

Objects = Literal["regions", "classes"]
_LEAST_MAX_VERTICES = 100


@dataclass(frozen=True)
class VectorizeOptions:
    """How :func:`sampath_wsi.stages.vectorize.stage.vectorize` draws.

    Parameters
    ----------
    tolerance
        Simplification cuts off triangles of up to this length squared, in micrometres; 0 follows every pixel. None is
        three quarters of a map pixel, which takes the steps from slanted borders and moves hardly a pixel's centre to
        another class; from a whole pixel on, files are a third smaller and one pixel in 300 changes.
    min_area
        A connected region of a class with less area, in um^2 (default: less than a nucleus), goes to the region around
        it.
    min_hole
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

    tolerance: float | None = None
    min_area: float = 25.0
    min_hole: float = 25.0
    objects: Objects = "regions"
    object_type: ObjectType = "annotation"
    frame: Frame = "qupath"
    max_vertices: int = 20_000
    max_objects: int | None = None

    def __post_init__(self) -> None:
        for key in ("tolerance", "min_area", "min_hole"):
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
