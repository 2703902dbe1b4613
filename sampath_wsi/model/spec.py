"""What a model expects of tiles, and who it is: all that tiling and inference need to know before weights are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sampath_wsi.classes import TissueClass
from sampath_wsi.stores.provenance import ModelRecord


@dataclass(frozen=True)
class ModelSpec:
    """A model as the stages see it.

    Parameters
    ----------
    classes
        In the order of its channels.
    mpp
        The resolution of the tiles that it wants, um/px.
    tile_px, overlap_px
        Their size, and the overlap that it was made for, in pixels of that resolution.
    output_stride
        Pixels of a tile in one pixel of the prediction, in each direction.
    """

    name: str
    weights_sha256: str
    classes: Sequence[TissueClass]
    mpp: float
    tile_px: int
    output_stride: int
    overlap_px: int = 0

    @property
    def record(self) -> ModelRecord:
        """The model as stores record it."""
        return ModelRecord(name=self.name, weights_sha256=self.weights_sha256, classes=tuple(self.classes))
