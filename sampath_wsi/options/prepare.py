"""Options of training data that are made from nothing, and of splits."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from sampath_wsi.options.base import Options
from sampath_wsi.options.stages import Count

Number = Annotated[int, Field(ge=1)]


class SyntheticOptions(Options):
    """Tiles of synthetic slides."""

    train_slides: Number = 48
    """slides to train on"""
    val_slides: Number = 8
    """other slides, to validate on"""
    tiles_per_slide: Number = 10
    """tiles cut from each slide"""
    tile_px: Annotated[int, Field(ge=64)] = 512
    """side of a tile in pixels"""
    mpp: Annotated[float, Field(gt=0, multiple_of=0.25)] = 0.5
    """resolution of the tiles in micrometres a pixel, a multiple of 0.25"""
    seed: int = 0
    """everything random is drawn from it"""


class SyntheticGlandOptions(Options):
    """Pictures of synthetic glands."""

    images: Annotated[int, Field(ge=2)] = 324
    """pictures to paint"""
    val_images: Number = 12
    """how many of them, the last, are for validation"""
    seed: int = 100
    """everything random is drawn from it"""

    @model_validator(mode="after")
    def _some_train(self) -> SyntheticGlandOptions:
        if self.val_images >= self.images:
            raise ValueError(
                f"{self.val_images} of {self.images} pictures cannot be for validation: keep some to train"
            )
        return self


class SplitOptions(Options):
    """Who trains and who validates: at most one of ``folds``, ``val_share`` and ``authors``."""

    folds: Annotated[int, Field(ge=2)] | None = None
    """deal the groups to so many folds"""
    fold: Count = 0
    """the fold that validates"""
    val_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    """deal this share of the samples, in whole groups, to validation, e.g. 0.2"""
    authors: str | None = None
    """the authors' folds: their CSV, its address, or 'bcss' or 'crag' to download it"""
    within: tuple[str, ...] = ()
    """a split to deal anew, by default train; may be repeated"""
    disjoint_from: str | None = None
    """first leave out training samples whose group is in this split"""
    seed: int = 0
    """everything random is drawn from it"""

    @model_validator(mode="after")
    def _make_sense(self) -> SplitOptions:
        ways = sum(way is not None for way in (self.folds, self.val_share, self.authors))
        if ways > 1:
            raise ValueError("--folds, --val-share and --authors exclude each other: give one of them")
        if not ways and self.disjoint_from is None:
            raise ValueError("there is nothing to do: give --folds, --val-share, --authors or --disjoint-from")
        if self.authors is not None and self.within:
            raise ValueError("the authors' folds name every split themselves: leave out --within")
        if self.folds is not None and self.fold >= self.folds:
            raise ValueError(f"of {self.folds} folds none has the number {self.fold}: count folds from 0")
        return self
