"""Inspect a slide before a run: levels and tissue, how many tiles a model would take, and how long that takes here."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

from sampath_wsi.errors import SlideError
from sampath_wsi.model.ready import read_spec, ready_model
from sampath_wsi.options import InferOptions
from sampath_wsi.progress import Progress
from sampath_wsi.runs.estimate import Estimate, estimate
from sampath_wsi.runs.sheet import safe_id
from sampath_wsi.slides import SlideInfo, SlideReader, inspect_slide
from sampath_wsi.stages.tile import TileRequest, plan_tiles

_SQUARE_WITHIN = 0.01


@dataclass(frozen=True)
class Level:
    """A level of the pyramid; ``reader`` is ``direct`` (JPEG tiles decoded here, fast) or ``OpenSlide``."""

    size_px: tuple[int, int]
    downsample: float
    mpp: tuple[float, float] | None
    reader: str


@dataclass(frozen=True)
class SlideReport:
    """Facts about a slide; without ``mpp`` those alone that need no resolution.

    Parameters
    ----------
    bounds_level0_px
        The part that is segmented: x, y, width, height.
    tissue_share, tissue_mm2
        Tissue within the bounds.
    tiles, grid
        Tiles that hold tissue; rows and columns of all tiles.
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


def inspect(
    path: Path,
    *,
    model: str = "demo",
    mpp: tuple[float, float] | None = None,
    device: str = "auto",
    results: Path | None = None,
    timing: bool = True,
    large_px: float = 1e8,
    progress: Progress | None = None,
) -> SlideReport:
    """Inspect a slide.

    Parameters
    ----------
    mpp
        Micrometres a level-0 pixel, in place of the metadata.
    results
        A folder of results: where slides were segmented by this model on such a device, the estimate is made from the
        time that this took.
    timing
        Otherwise it is measured on the spot: some tiles are read and predicted. False makes no estimate.
    large_px
        A slide of more pixels without a pyramid is warned of: finding its tissue takes as long as reading all of it.

    Raises
    ------
    SlideError
        If the slide cannot be opened or read.
    ModelError
        If there is no such model.
    """
    spec = read_spec(model)
    info, problem = _open(path, mpp)
    with SlideReader(info) as reader:
        report = SlideReport(
            path=str(path),
            vendor=info.vendor,
            size_level0_px=info.size_level0_px,
            mpp=None if problem else info.mpp,
            mpp_source=None if problem else info.mpp_source,
            bounds_level0_px=info.bounds_level0_px,
            levels=_levels(info, reader, known_mpp=not problem),
            model=spec.name,
            warnings=(problem,) if problem else tuple(_warnings(info, large_px)),
        )
        if problem:
            return report
        plan = plan_tiles(TileRequest(info, safe_id(path.stem), spec), progress=progress)
        grid = plan.result.grid
        report = replace(
            report,
            warnings=(*report.warnings, *plan.result.warnings),
            tissue_share=min(1.0, plan.result.tissue_um2 / math.prod(grid.mpp_map * n for n in grid.map_size_map_px)),
            tissue_mm2=plan.result.tissue_um2 / 1e6,
            tiles=plan.result.tiles,
            grid=(grid.rows, grid.columns),
            tile_px=grid.tile_model_px,
            mpp_model=grid.mpp_model,
            overlap_px=grid.overlap_model_px,
            level_read=reader.level_for(min(grid.level0_px_per_model_px)),
        )
        if not timing or not report.tiles:
            return report
        with ready_model(model, InferOptions(device=device), hold=False) as ready:
            return replace(report, estimate=estimate(reader, plan.provenance.grid, ready, results, progress))


def _open(path: Path, mpp: tuple[float, float] | None) -> tuple[SlideInfo, str]:
    """Open the slide; where its resolution is unknown or wrong, take 1 um/px and return what is wrong."""
    try:
        return inspect_slide(path, mpp=mpp, mpp_source="command line"), ""
    except SlideError as error:
        if mpp is not None:
            raise
        # If it opens with a resolution, only that was missing; else this says what is wrong.
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


def _warnings(info: SlideInfo, large_px: float) -> list[str]:
    found = []
    if abs(info.mpp[0] / info.mpp[1] - 1) > _SQUARE_WITHIN:
        found.append(
            f"its pixels are not square ({info.mpp[0]:g} x {info.mpp[1]:g} um/px): this is minded here, but check it"
        )
    if len(info.level_sizes) == 1 and math.prod(info.size_level0_px) > large_px:
        found.append("it has no pyramid: finding the tissue reads the whole slide, which takes long")
    return found
