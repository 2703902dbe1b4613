"""What a slide is, how much of it a model would segment, and what that would take here."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sampath_wsi.errors import SlideError
from sampath_wsi.model.card import CARD_NAME, ModelCard
from sampath_wsi.model.ready import ready_model, tile_options
from sampath_wsi.model.zoo import resolve_model
from sampath_wsi.progress import Progress
from sampath_wsi.runs.estimate import Estimate, estimate
from sampath_wsi.runs.sheet import safe_id
from sampath_wsi.slides import SlideInfo, SlideReader, inspect_slide
from sampath_wsi.stages.tile import TilePlan, plan_tiles

_SQUARE_WITHIN = 0.01
# Finding the tissue of a larger slide without a pyramid takes as long as reading all of it.
_SINGLE_LEVEL_PX = 1e8


@dataclass(frozen=True)
class Level:
    """A level of the pyramid; ``reader`` is ``direct`` (JPEG tiles decoded here, fast) or ``OpenSlide``."""

    size_px: tuple[int, int]
    downsample: float
    mpp: tuple[float, float] | None
    reader: str


@dataclass(frozen=True)
class SlideReport:
    """What is known of a slide; without ``mpp`` nothing that needs a resolution.

    Attributes
    ----------
    bounds_level0_px
        What is segmented: x, y, width, height.
    tissue_share, tissue_mm2
        Of the bounds.
    tiles, grid
        Those that hold tissue, and rows and columns of all.
    level_read
        The level that tiles are read from.
    """

    path: str
    vendor: str
    size_level0_px: tuple[int, int]
    mpp: tuple[float, float] | None
    mpp_source: str | None
    bounds_level0_px: tuple[int, int, int, int]
    levels: tuple[Level, ...]
    model: str
    warnings: tuple[str, ...]
    tissue_share: float | None = None
    tissue_mm2: float | None = None
    tiles: int | None = None
    grid: tuple[int, int] | None = None
    tile_px: int | None = None
    mpp_model: float | None = None
    overlap_px: int | None = None
    level_read: int | None = None
    estimate: Estimate | None = None

    def to_json(self) -> dict[str, Any]:
        """The same as a JSON object."""
        return asdict(self)


def inspect(
    path: Path,
    *,
    model: str = "demo",
    mpp: tuple[float, float] | None = None,
    device: str = "auto",
    results: Path | None = None,
    timing: bool = True,
    progress: Progress | None = None,
) -> SlideReport:
    """Look at a slide.

    Parameters
    ----------
    mpp
        Micrometres a level-0 pixel, in place of the metadata.
    results
        A folder of results: where slides were segmented by this model on such a device, the estimate is made from
        what that took.
    timing
        Otherwise it is measured on the spot: some tiles are read and predicted. False makes no estimate.

    Raises
    ------
    SlideError
        If the slide cannot be opened or read.
    ModelError
        If there is no such model.
    """
    card = ModelCard.read(resolve_model(model) / CARD_NAME)
    info, problem = _open(path, mpp)
    with SlideReader(info) as reader:
        levels = _levels(info, reader, known_mpp=not problem)
        first = SlideReport(
            path=str(path),
            vendor=info.vendor,
            size_level0_px=info.size_level0_px,
            mpp=None if problem else info.mpp,
            mpp_source=None if problem else info.mpp_source,
            bounds_level0_px=info.bounds_level0_px,
            levels=levels,
            model=card.name,
            warnings=(problem,) if problem else tuple(_warnings(info)),
        )
        if problem:
            return first
        plan = plan_tiles(info, tile_options(card, overlap_px=None), slide_id=safe_id(path.stem), progress=progress)
        found = _with_plan(first, info, reader, plan)
        if not timing or not found.tiles:
            return found
        with ready_model(model, device=device, hold=False) as ready:
            made = estimate(reader, plan.provenance.grid, ready, results, progress)
    return SlideReport(**{**vars(found), "estimate": made})


def _open(path: Path, mpp: tuple[float, float] | None) -> tuple[SlideInfo, str]:
    """The slide, and what is wrong with its resolution; the resolution is 1 um/px then."""
    try:
        return inspect_slide(path, mpp=mpp, mpp_source="command line"), ""
    except SlideError as error:
        if mpp is not None:
            raise
        # If it opens with a resolution, that was what it lacked; else this says what is wrong.
        return inspect_slide(path, mpp=(1.0, 1.0)), str(error).removeprefix(f"{path}: ")


def _levels(info: SlideInfo, reader: SlideReader, *, known_mpp: bool) -> tuple[Level, ...]:
    return tuple(
        Level(
            size_px=size,
            downsample=downsample,
            mpp=(info.mpp[0] * downsample, info.mpp[1] * downsample) if known_mpp else None,
            reader="direct" if level in reader.direct_levels else "OpenSlide",
        )
        for level, (size, downsample) in enumerate(zip(info.level_sizes, info.downsamples, strict=True))
    )


def _with_plan(report: SlideReport, info: SlideInfo, reader: SlideReader, plan: TilePlan) -> SlideReport:
    grid = plan.result.grid
    bounds_um2 = math.prod(grid.mpp_map * n for n in grid.map_size_map_px)
    scale = min(grid.level0_px_per_model_px)
    return SlideReport(
        **{
            **vars(report),
            "warnings": (*report.warnings, *plan.result.warnings),
            "tissue_share": min(1.0, plan.result.tissue_um2 / bounds_um2),
            "tissue_mm2": plan.result.tissue_um2 / 1e6,
            "tiles": plan.result.tiles,
            "grid": (grid.rows, grid.columns),
            "tile_px": grid.tile_model_px,
            "mpp_model": grid.mpp_model,
            "overlap_px": grid.overlap_model_px,
            "level_read": reader.level_for(scale),
        }
    )


def _warnings(info: SlideInfo) -> list[str]:
    found = []
    if abs(info.mpp[0] / info.mpp[1] - 1) > _SQUARE_WITHIN:
        found.append(
            f"its pixels are not square ({info.mpp[0]:g} x {info.mpp[1]:g} um/px): this is minded here, but check it"
        )
    if len(info.level_sizes) == 1 and math.prod(info.size_level0_px) > _SINGLE_LEVEL_PX:
        found.append("it has no pyramid: finding the tissue reads the whole slide, which takes long")
    return found
