"""All stages of one slide in one process."""

from __future__ import annotations

from pathlib import Path

from sampath_wsi.errors import StoreError
from sampath_wsi.facts import infer_facts, stitch_facts, tile_facts, vectorize_facts
from sampath_wsi.machine.facts import cores
from sampath_wsi.model.ready import CustomModel, ReadyModel, read_card, ready_model, tile_options
from sampath_wsi.progress import Progress
from sampath_wsi.results import Segmentation
from sampath_wsi.runs.record import recorded
from sampath_wsi.runs.sheet import safe_id
from sampath_wsi.slides import SlideInfo, inspect_slide
from sampath_wsi.stages.infer.stage import infer, plan_probabilities
from sampath_wsi.stages.report import write_overlay, write_summary
from sampath_wsi.stages.stitch.stage import stitch
from sampath_wsi.stages.tile import TilePlan, plan_tiles, write_tiles
from sampath_wsi.stages.vectorize.options import VectorizeOptions
from sampath_wsi.stages.vectorize.stage import vectorize
from sampath_wsi.stores.store import is_finished, open_store, remove_store

_TILES = "tiles.zarr"


def segment_slide(
    slide: str | Path,
    out: str | Path,
    *,
    model: str | Path | CustomModel = "demo",
    mpp: float | tuple[float, float] | None = None,
    overlap_px: int | None = None,
    tissue_mask: str | Path | None = None,
    region: str | Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    batch: int | None = None,
    min_area_um2: float = 25.0,
    min_hole_um2: float = 25.0,
    tolerance_um: float | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Segmentation:
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
    mpp
        Micrometres a level-0 pixel, in place of the metadata.
    overlap_px
        Overlap of tiles in model pixels; by default the model's.
    tissue_mask, region
        See :func:`sampath_wsi.tissue.mask.find_tissue`.
    device, precision, batch
        See :func:`ready_model`.
    min_area_um2, min_hole_um2, tolerance_um
        See :class:`sampath_wsi.stages.vectorize.options.VectorizeOptions`.
    threads
        By default as many as there are cores.
    progress
        Told how each stage advances.

    Raises
    ------
    SampathError
        Its message says what is wrong and what to do; what is finished stays for the next call.
    """
    threads = threads or cores()
    x_y = (mpp, mpp) if isinstance(mpp, int | float) else mpp
    info = inspect_slide(Path(slide), mpp=x_y, mpp_source="command line")
    result = Segmentation(Path(out) / "slides" / safe_id(info.path.stem))
    records = result.folder / "run"
    options = tile_options(read_card(model), overlap_px=overlap_px)
    with recorded("tile", records / "tile.json") as facts:
        plan = plan_tiles(
            info,
            options,
            slide_id=result.folder.name,
            mask_path=None if tissue_mask is None else Path(tissue_mask),
            region_path=None if region is None else Path(region),
            threads=threads,
            progress=progress,
        )
        if not _made_of(plan, result.probabilities):
            write_tiles(info, result.folder / _TILES, plan, threads=threads, progress=progress)
        facts.update(tile_facts(info, plan.result))
    # Only now, so that no GPU waits while the slide is tiled.
    with ready_model(model, device=device, precision=precision, batch=batch, threads=threads) as ready:
        _predict(info, plan, ready, result, threads, progress)
    with recorded("stitch", records / "stitch.json") as facts:
        facts.update(stitch_facts(stitch(result.probabilities, result.store, threads=threads, progress=progress)))
    with recorded("vectorize", records / "vectorize.json") as facts:
        drawing = VectorizeOptions(tolerance_um, min_area_um2, min_hole_um2)
        drawn = vectorize(result.store, result.geojson, drawing, progress=progress)
        facts.update(vectorize_facts(drawn))
    write_overlay(info, result.store, result.overlay, result.folder / "thumbnail.jpg")
    write_summary(result.store, records, result.folder / "summary.json")
    return result


def _made_of(plan: TilePlan, probabilities: Path) -> bool:
    """Whether the model has seen these tiles already."""
    try:
        return open_store(probabilities, "probabilities")[1].inputs["tiles"] == plan.provenance.identity
    except StoreError:
        return False


def _predict(
    info: SlideInfo,
    plan: TilePlan,
    model: ReadyModel,
    result: Segmentation,
    threads: int,
    progress: Progress | None,
) -> None:
    """Stage 2, unless its result is there; the tiles are removed when they have served."""
    tiles = result.folder / _TILES
    wanted = plan_probabilities(plan.provenance, model.frame, model.precision, model.batch)
    if not is_finished(result.probabilities, wanted):
        write_tiles(info, tiles, plan, threads=threads, progress=progress)
        with recorded("infer", result.folder / "run" / "infer.json") as facts:
            predicted = infer(
                tiles,
                result.probabilities,
                model.frame,
                model.load,
                precision=model.precision,
                batch=model.batch,
                progress=progress,
            )
            facts.update(infer_facts(model, predicted))
    remove_store(tiles)
