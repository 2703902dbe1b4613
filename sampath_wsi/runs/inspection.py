"""Inspect a slide before a run: levels and tissue, how many tiles a model would take, and how long that takes here."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
from numcodecs.blosc import Blosc  # type: ignore[import-untyped]
from numpy.typing import NDArray

from sampath_wsi.cohort.table import read_json
from sampath_wsi.errors import SlideError
from sampath_wsi.geometry import TileGrid
from sampath_wsi.model.ready import read_spec, ready_model
from sampath_wsi.options import InferOptions
from sampath_wsi.progress import Progress, stepper
from sampath_wsi.results import RunResults
from sampath_wsi.runs.sheet import safe_id
from sampath_wsi.slides import SlideInfo, SlideReader, inspect_slide
from sampath_wsi.stages.infer.stage import ReadyModel
from sampath_wsi.stages.tile import TileRequest, check_magnification, plan_tiles

_SQUARE_WITHIN = 0.01
_TILES_READ = 6
_ENOUGH_S = 3.0
_ENOUGH_SLIDES = 3
# Stage 1 has two threads unless told otherwise.
_TILE_THREADS = 2
# Stitching and vectorizing, from benchmarks/map.py on two cores; start of four processes, and the report.
_S_A_MAP_MPX = 0.1
_START_S = 12.0


@dataclass(frozen=True)
class Level:
    """A level of the pyramid; ``reader`` is ``direct`` (JPEG tiles decoded here, fast) or ``OpenSlide``."""

    size_px: tuple[int, int]
    downsample: float
    mpp: tuple[float, float] | None
    reader: str


@dataclass(frozen=True)
class Estimate:
    """Time and disk that segmenting a slide takes.

    Parameters
    ----------
    seconds
        By stage; ``rest`` is stitching, vectorizing, pictures, and the start of programs.
    results_bytes
        Disk that results take.
    tiles_bytes
        Disk that is needed besides until the tiles are predicted.
    device
        Where the model runs.
    how
        The measurements that the estimate rests on, for people.
    """

    seconds: dict[str, float]
    results_bytes: int
    tiles_bytes: int
    device: str
    how: str


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
        request = TileRequest(info, safe_id(path.stem), spec)
        try:
            check_magnification(request)
        except SlideError as error:
            return replace(report, warnings=(*report.warnings, str(error).removeprefix(f"{path}: ")))
        plan = plan_tiles(request, progress=progress)
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
            return replace(report, estimate=_estimate(reader, plan.provenance.grid, ready, results, progress))


def _open(path: Path, mpp: tuple[float, float] | None) -> tuple[SlideInfo, str]:
    """Open the slide; if its resolution is unknown or wrong, use 1 um/px and return the problem."""
    try:
        return inspect_slide(path, mpp=mpp, mpp_source="command line"), ""
    except SlideError as error:
        if mpp is not None:
            raise
        # If it opens with a resolution, only that was missing; else this raises the error.
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


def _estimate(
    reader: SlideReader, grid: TileGrid, model: ReadyModel, results: Path | None, progress: Progress | None
) -> Estimate:
    """Estimate time and disk of a slide for a model.

    Parameters
    ----------
    grid
        The slide's tiles that hold tissue; at least one.
    results
        Earlier results; None measures.
    """
    pixels, read_s = _read_some(reader, grid, progress)
    count, map_mpx = len(grid.tiles), np.prod(grid.map_size_map_px) / 1e6
    known = [] if results is None else _seconds_a_tile(results, model)
    if len(known) >= _ENOUGH_SLIDES:
        infer_s = median(known) * count
        how = f"{len(known)} slides in {results} by this model on {model.device}; {len(pixels)} tiles read now"
        # Maps of tissue shrink to about a third.
        packed = len(model.spec.classes) * grid.tile_map_px**2 / 3
    else:
        predicted, load_s, tile_s, packed = _predict_some(pixels, model, progress)
        infer_s = load_s + tile_s * count
        how = f"measured now: {len(pixels)} tiles read, {predicted} predicted"
    rest_s = _START_S + _S_A_MAP_MPX * float(map_mpx)
    a_value = packed / (len(model.spec.classes) * grid.tile_map_px**2)
    segmentation = a_value * np.prod(grid.map_size_map_px) * (len(model.spec.classes) + 1) * 4 / 3
    covered = min(1.0, count * grid.step_map_px**2 / float(np.prod(grid.map_size_map_px)))
    return Estimate(
        seconds={"tile": read_s * count / _TILE_THREADS, "infer": infer_s, "rest": rest_s},
        results_bytes=round(packed * count + segmentation * covered),
        tiles_bytes=round(_packed_bytes(pixels) / len(pixels) * count),
        device=model.device,
        how=how,
    )


def _read_some(reader: SlideReader, grid: TileGrid, progress: Progress | None) -> tuple[NDArray[np.uint8], float]:
    """Read some tiles from all over the slide; return them and the seconds that one took in one thread."""
    positions = np.unique(np.linspace(0, len(grid.tiles) - 1, _TILES_READ).astype(int))
    size = (grid.tile_model_px, grid.tile_model_px)
    step = stepper(progress, len(positions), "tiles read")
    begun, found = time.monotonic(), []
    for position in positions:
        found.append(reader.read(grid.tile_box_level0_px(grid.tiles[position]), size, what="a tile"))
        step()
        if time.monotonic() - begun > _ENOUGH_S:
            break
    return np.stack(found), (time.monotonic() - begun) / len(found)


def _predict_some(
    pixels: NDArray[np.uint8], model: ReadyModel, progress: Progress | None
) -> tuple[int, float, float, float]:
    """Return how many tiles were predicted, seconds to load the model and to predict a tile, and bytes of a tile."""
    step = stepper(progress, 3, "timings of the model")
    begun = time.monotonic()
    predict = model.load(model.computed.precision)
    load_s = time.monotonic() - begun
    step()
    # Whole batches, as stage 2 has them; the first one is slower than all others.
    batch = np.resize(pixels, (model.computed.batch, *pixels.shape[1:]))
    seconds: list[float] = []
    while not seconds or (len(seconds) < 2 and seconds[0] < _ENOUGH_S):
        begun = time.monotonic()
        probability, _ = predict(batch)
        seconds.append(time.monotonic() - begun)
        step()
    count = len(batch)
    return len(seconds) * count, load_s, min(seconds) / count, _packed_bytes(probability) / count


def _packed_bytes(array: NDArray[np.uint8]) -> int:
    """Return roughly the bytes that a store takes: tiles are compressed by lz4, everything else better."""
    return len(Blosc(cname="lz4", clevel=1, shuffle=Blosc.NOSHUFFLE).encode(np.ascontiguousarray(array)))


def _seconds_a_tile(results: Path, model: ReadyModel) -> list[float]:
    """Return the times of the slides there that this model segmented on such a device without a break."""
    found = []
    for slide in RunResults(results).slides():
        summary, record = read_json(slide.summary_file), read_json(slide.record("infer"))
        same = summary.get("weights_sha256") == model.spec.weights_sha256 and record.get("device") == model.device
        if same and record.get("computed") and record.get("computed") == record.get("tiles"):
            found.append(record["seconds"] / record["tiles"])
    return found
