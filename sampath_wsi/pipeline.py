"""All stages of a slide: one function for each stage, and :func:`segment_slide`, which calls them in turn.

The commands call the same functions, one each, and the rules of the workflow call the commands. Options are a model of
:mod:`sampath_wsi.options`, a mapping with its keys, or None for the defaults.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from sampath_wsi.machine.facts import cores
from sampath_wsi.options import ImageOptions, InferOptions, Options, StitchOptions, TileOptions, VectorizeOptions
from sampath_wsi.progress import Progress
from sampath_wsi.results import RunResults, SlideResults
from sampath_wsi.runs.record import recorded
from sampath_wsi.runs.sheet import SLIDE_ID, SheetRow, parse_mpp, safe_id

if TYPE_CHECKING:
    from sampath_wsi.geometry import MppSource
    from sampath_wsi.model.ready import CustomModel
    from sampath_wsi.slides import SlideInfo
    from sampath_wsi.stages.infer.parts import Part
    from sampath_wsi.stages.infer.stage import InferResult, ReadyModel
    from sampath_wsi.stages.stitch.stage import StitchResult
    from sampath_wsi.stages.tile import TilePlan, TileRequest, TileResult
    from sampath_wsi.stages.vectorize.stage import VectorizeResult

log = logging.getLogger("sampath_wsi")

# Each function imports its own stage, so that no command loads the libraries of another.


def tile_request(
    row: SheetRow,
    *,
    model: str | Path | CustomModel = "demo",
    options: TileOptions | Mapping[str, object] | None = None,
    mpp_source: MppSource = "sample sheet",
) -> TileRequest:
    """Open a slide, and return how it is to be tiled for a model.

    Raises
    ------
    SlideError, ModelError, ConfigError
        If slide, model or options cannot be used.
    """
    from sampath_wsi.model.ready import read_spec
    from sampath_wsi.slides import inspect_slide
    from sampath_wsi.stages.tile import TileRequest

    spec = read_spec(model)
    options = TileOptions.of(options, "tile")
    info = inspect_slide(Path(row.path), mpp=parse_mpp(row.mpp) if row.mpp else None, mpp_source=mpp_source)
    overlap_px = spec.overlap_px if options.overlap is None else options.overlap
    log.info("tile: model %s, tiles %d px, mpp %g, overlap %d px", spec.name, spec.tile_px, spec.mpp, overlap_px)
    mask, roi = (Path(path) if path else None for path in (row.tissue_mask, row.roi))
    return TileRequest(info, row.slide, spec, options, mask, roi)


def tile(
    request: TileRequest, plan: TilePlan, out: Path, *, threads: int = 2, progress: Progress | None = None
) -> TileResult:
    """Stage 1: write the tiles of a slide that hold tissue, as ``plan_tiles`` found them."""
    from sampath_wsi.stages.tile import write_tiles

    result = write_tiles(request.slide, out, plan, threads=threads, progress=progress)
    log.info("tile: %d of %d x %d tiles hold tissue", result.tiles, result.grid.rows, result.grid.columns)
    return result


def ready_model(
    model: str | Path | CustomModel,
    options: InferOptions | Mapping[str, object] | None = None,
    *,
    threads: int | None = None,
    hold: bool = True,
) -> AbstractContextManager[ReadyModel]:
    """Yield a model on a device; see :func:`sampath_wsi.model.ready.ready_model`."""
    from sampath_wsi.model.ready import ready_model

    return ready_model(model, InferOptions.of(options, "infer"), threads=threads, hold=hold)


def infer(
    tiles: Path, out: Path, model: ReadyModel, *, part: Part | None = None, progress: Progress | None = None
) -> InferResult:
    """Stage 2: run a model over the tiles; see :func:`sampath_wsi.stages.infer.stage.infer`."""
    from sampath_wsi.stages.infer.stage import infer

    log.info("infer: model %s (weights %s), device %s", model.spec.name, model.spec.weights_sha256[:12], model.device)
    result = infer(tiles, out, model, part=part, progress=progress)
    if result.busy is not None:
        log.info(
            "infer: %s, %d tiles a batch: %.3g tiles/s, device busy %.0f %% of the time",
            result.how.precision,
            result.how.batch,
            result.computed / result.seconds,
            100 * result.busy,
        )
    return result


def stitch(
    probabilities: Path,
    out: Path,
    options: StitchOptions | Mapping[str, object] | None = None,
    *,
    threads: int = 2,
    progress: Progress | None = None,
) -> StitchResult:
    """Stage 3: blend the tiles' probabilities into one map; see :func:`sampath_wsi.stages.stitch.stage.stitch`."""
    from sampath_wsi.stages.stitch.stage import stitch

    return stitch(probabilities, out, StitchOptions.of(options, "stitch"), threads=threads, progress=progress)


def vectorize(
    segmentation: Path,
    out: Path,
    options: VectorizeOptions | Mapping[str, object] | None = None,
    *,
    progress: Progress | None = None,
) -> VectorizeResult:
    """Stage 4: turn the map into polygons; see :func:`sampath_wsi.stages.vectorize.stage.vectorize`."""
    from sampath_wsi.stages.vectorize.stage import vectorize

    chosen = VectorizeOptions.of(options, "vectorize")
    result = vectorize(segmentation, out, chosen, progress=progress)
    if result.cut_objects:
        log.info(
            "vectorize: %d objects of more than %d vertices were cut into %d pieces (max_vertices)",
            result.cut_objects,
            chosen.max_vertices,
            result.pieces,
        )
    return result


def report(info: SlideInfo, results: SlideResults) -> None:
    """Write the picture and the summary of a slide that is segmented."""
    from sampath_wsi.stages.report import write_overlay, write_summary

    write_overlay(info, results.segmentation, results.overlay, results.thumbnail)
    write_summary(results.segmentation, results.records, results.summary_file)


class SlideOptions(Options):
    """Keywords of :func:`segment_slide`: what is known of the slide, and the options of each stage."""

    slide_id: Annotated[str, Field(pattern=SLIDE_ID)] | None = None
    """the name of its results; by default from its file"""
    mpp: tuple[float, float] | float | None = None
    """micrometres a level-0 pixel, or x and y of it, in place of the metadata"""
    tissue_mask: Path | None = None
    """an image of the whole slide, not 0 where there is tissue, in place of detection"""
    roi: Path | None = None
    """QuPath annotations (GeoJSON) that limit what is segmented"""
    tile: TileOptions = TileOptions()
    """options of stage 1"""
    infer: InferOptions = InferOptions()
    """options of stage 2"""
    stitch: StitchOptions = StitchOptions()
    """options of stage 3"""
    vectorize: VectorizeOptions = VectorizeOptions()
    """options of stage 4"""
    images: ImageOptions = ImageOptions()
    """pictures to open beside the slide"""

    def row(self, slide: Path) -> SheetRow:
        """Return what a sample sheet would say of the slide."""
        x, y = self.mpp if isinstance(self.mpp, tuple) else (self.mpp, self.mpp)
        return SheetRow.model_construct(
            slide=self.slide_id or safe_id(slide.stem),
            path=str(slide),
            mpp="" if x is None else f"{x!r}x{y!r}",
            tissue_mask=str(self.tissue_mask or ""),
            roi=str(self.roi or ""),
        )


def segment_slide(
    slide: str | Path,
    out: str | Path,
    *,
    model: str | Path | CustomModel = "demo",
    threads: int | None = None,
    progress: Progress | None = None,
    **options: object,
) -> SlideResults:
    """Segment a slide, or go on where an earlier call with the same arguments was cut off.

    Everything is left out that is finished already.

    Parameters
    ----------
    slide
        Its file.
    out
        The folder of all results; those of the slide go to ``out/slides/NAME``, as the workflow leaves them.
    model
        The name of a model (``sampath-wsi model list``), the path of one, or a predictor of your own.
    threads
        By default as many as there are cores.
    progress
        Told how each stage advances.
    **options
        Fields of :class:`SlideOptions`: ``mpp``, ``tissue_mask``, ``roi``, ``slide_id``, and the options of each stage,
        as in the configuration: ``tile={"overlap": 64}``, ``infer``, ``stitch``, ``vectorize``, ``images``.

    Raises
    ------
    SampathError
        Its message gives the problem and the remedy; finished stages stay for the next call.
    """
    from sampath_wsi.stages.infer.stage import wanted_probabilities
    from sampath_wsi.stages.tile import plan_tiles
    from sampath_wsi.stores.store import is_finished, remove_store

    threads = threads or cores()
    chosen = SlideOptions.of(options, "segment_slide")
    row = chosen.row(Path(slide))
    results = RunResults(Path(out)).slide(row.slide)
    work: dict[str, Any] = {"threads": threads, "progress": progress}
    request = tile_request(row, model=model, options=chosen.tile, mpp_source="command line")
    with recorded("tile", results.record("tile")) as facts:
        plan = plan_tiles(request, **work)
        precision = chosen.infer.precision if isinstance(model, str | Path) else "own"
        predicted = is_finished(results.probabilities, wanted_probabilities(plan.provenance, request.model, precision))
        if not predicted:
            tile(request, plan, results.tiles, **work)
        facts.update(plan.result.facts)
    # Only now, so that no GPU waits while the slide is tiled.
    if not predicted:
        with (
            ready_model(model, chosen.infer, threads=threads) as ready,
            recorded("infer", results.record("infer")) as facts,
        ):
            facts.update(infer(results.tiles, results.probabilities, ready, progress=progress).facts)
    remove_store(results.tiles)
    with recorded("stitch", results.record("stitch")) as facts:
        facts.update(stitch(results.probabilities, results.segmentation, chosen.stitch, **work).facts)
    with recorded("vectorize", results.record("vectorize")) as facts:
        facts.update(vectorize(results.segmentation, results.geojson, chosen.vectorize, progress=progress).facts)
    _beside(results, chosen, work)
    report(request.slide, results)
    return results


def _beside(results: SlideResults, chosen: SlideOptions, work: dict[str, Any]) -> None:
    """Write what is not asked for by default: tiles for measurement maps, pictures."""
    if chosen.vectorize.tiles:
        from sampath_wsi.stages.vectorize.tiles import write_tile_objects

        frame, progress = chosen.vectorize.frame, work["progress"]
        write_tile_objects(results.segmentation, results.tile_objects, frame=frame, progress=progress)
    if chosen.images.classes or chosen.images.probability or chosen.images.entropy:
        from sampath_wsi.stages.images import write_images

        write_images(results.segmentation, results.folder, chosen.images, **work)
