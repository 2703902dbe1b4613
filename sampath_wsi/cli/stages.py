"""The commands of the four stages: tile, infer, stitch, vectorize."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Literal

import typer

from sampath_wsi.cli.dry_run import DryRun, say_objects, say_probabilities, say_segmentation, say_tiles
from sampath_wsi.cli.joining import forget_shards
from sampath_wsi.cli.options import Device, Model, ModelThreads, Mpp, Precision, Record, SlideId, Threads
from sampath_wsi.cli.run import log, stage_run
from sampath_wsi.geometry import MppSource

# Imports of the stages stand inside the commands: `sampath-wsi --help` must not load torch, and no stage loads
# what another needs.


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for command in (tile, infer, stitch, vectorize):
        app.command()(command)


def tile(
    slide: Annotated[Path, typer.Argument(help="The slide.")],
    out: Annotated[Path, typer.Option("--out", help="The tile store to write, e.g. results/slides/a/tiles.zarr.")],
    model: Model = "demo",
    slide_id: SlideId = None,
    mpp: Mpp = None,
    mpp_source: Annotated[MppSource, typer.Option(help="Where --mpp comes from, for the record.")] = "command line",
    overlap: Annotated[int | None, typer.Option(help="Overlap of tiles in pixels; default: the model's.")] = None,
    min_tissue: Annotated[float, typer.Option(min=0, max=1, help="Keep tiles with more than this share.")] = 0.0,
    tissue: Annotated[bool, typer.Option(help="Find the tissue; otherwise everything is tiled.")] = True,
    tissue_mpp: Annotated[float, typer.Option(min=0.5, help="The tissue mask's mpp, um/px.")] = 8.0,
    min_tissue_area: Annotated[float, typer.Option(min=0, help="Drop smaller islands of tissue, um^2.")] = 5_000.0,
    min_tissue_hole: Annotated[float, typer.Option(min=0, help="Fill smaller holes of tissue, um^2.")] = 5_000.0,
    tissue_mask: Annotated[Path | None, typer.Option(help="Image of the whole slide: not 0 is tissue.")] = None,
    region: Annotated[Path | None, typer.Option(help="QuPath annotations that limit what is segmented.")] = None,
    threads: Threads = 2,
    record: Record = None,
    dry_run: DryRun = False,
) -> None:
    """Stage 1: cut the tissue of a slide into tiles at the model's mpp.

    Example: sampath-wsi tile a.svs --out a/tiles.zarr --model demo
    """
    with stage_run("tile", str(slide), None if dry_run else record) as run:
        from sampath_wsi.facts import tile_facts
        from sampath_wsi.model.ready import read_card, tile_options
        from sampath_wsi.runs.sheet import parse_mpp, safe_id
        from sampath_wsi.runs.validation import check_finite
        from sampath_wsi.slides import inspect_slide
        from sampath_wsi.stages.tile import plan_tiles, write_tiles
        from sampath_wsi.tissue.mask import TissueOptions

        check_finite(
            min_tissue=min_tissue,
            tissue_mpp=tissue_mpp,
            min_tissue_area=min_tissue_area,
            min_tissue_hole=min_tissue_hole,
        )
        card = read_card(model)
        info = inspect_slide(slide, mpp=parse_mpp(mpp) if mpp else None, mpp_source=mpp_source)
        options = tile_options(
            card,
            overlap_px=overlap,
            min_tissue=min_tissue,
            tissue=TissueOptions(tissue, tissue_mpp, min_tissue_area, min_tissue_hole),
        )
        run.works_with(
            model=card.name, tiles=f"{card.tile_px} px", mpp=card.mpp, overlap=f"{options.overlap_model_px} px"
        )
        plan = plan_tiles(
            info,
            options,
            slide_id=slide_id or safe_id(slide.stem),
            mask_path=tissue_mask,
            region_path=region,
            threads=threads,
            progress=run.progress,
        )
        if dry_run:
            say_tiles(out, plan)
            return
        result = write_tiles(info, out, plan, threads=threads, progress=run.progress)
        run.facts.update(tile_facts(info, result))
        log.info("tile: %d of %d x %d tiles hold tissue", result.tiles, result.grid.rows, result.grid.columns)


def infer(
    tiles: Annotated[Path, typer.Argument(help="The tile store.")],
    out: Annotated[Path, typer.Option("--out", help="The probability store to write.")],
    model: Model = "demo",
    device: Device = "auto",
    precision: Precision = "auto",
    batch: Annotated[int | None, typer.Option(min=1, help="Tiles a batch; default: by device.")] = None,
    shard: Annotated[
        str | None, typer.Option(metavar="K/N", help="Only the K-th of N parts of the slide; then `sampath-wsi join`.")
    ] = None,
    threads: ModelThreads = None,
    record: Record = None,
    dry_run: DryRun = False,
) -> None:
    """Stage 2: run SAM-Path on every tile.

    Example: sampath-wsi infer a/tiles.zarr --out a/probabilities.zarr --model demo
    """
    with stage_run("infer", str(tiles), None if dry_run else record) as run, ExitStack() as held:
        from sampath_wsi.facts import infer_facts
        from sampath_wsi.model.ready import ready_model
        from sampath_wsi.stages.infer.parts import Part
        from sampath_wsi.stages.infer.stage import infer as infer_store

        part = Part.parse(shard) if shard else None
        ready = held.enter_context(
            ready_model(model, device=device, precision=precision, batch=batch, threads=threads, hold=not dry_run)
        )
        if dry_run:
            say_probabilities(out, tiles, ready, part)
            return
        run.works_with(
            model=f"{ready.frame.name} (weights {ready.frame.weights_sha256[:12]})",
            device=ready.device,
            precision=ready.precision,
            batch=ready.batch,
        )
        result = infer_store(
            tiles,
            out,
            ready.frame,
            ready.load,
            precision=ready.precision,
            batch=ready.batch,
            part=part,
            progress=run.progress,
        )
        run.facts.update(infer_facts(ready, result))
        if result.busy is not None:
            rate = result.computed / result.seconds
            log.info("infer: %.3g tiles/s, device busy %.0f %% of the time", rate, 100 * result.busy)
    if part is None:
        forget_shards(record)


def stitch(
    probabilities: Annotated[Path, typer.Argument(help="The probability store.")],
    out: Annotated[Path, typer.Option("--out", help="The OME-Zarr to write, e.g. a/segmentation.ome.zarr.")],
    dtype: Annotated[Literal["uint8", "float32"], typer.Option(help="Of the stored probabilities.")] = "uint8",
    mask_to_tissue: Annotated[bool, typer.Option(help="No class outside the tissue.")] = True,
    dask: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Compute on the workers of a Dask scheduler, tcp://host:8786.")
    ] = None,
    threads: Threads = 2,
    record: Record = None,
    dry_run: DryRun = False,
) -> None:
    """Stage 3: blend the tiles' probabilities into one map, an OME-Zarr pyramid.

    Example: sampath-wsi stitch a/probabilities.zarr --out a/segmentation.ome.zarr
    """
    with stage_run("stitch", str(probabilities), None if dry_run else record) as run:
        from sampath_wsi.facts import stitch_facts
        from sampath_wsi.stages.stitch.stage import StitchOptions, plan_segmentation
        from sampath_wsi.stages.stitch.stage import stitch as stitch_store
        from sampath_wsi.stores.store import open_store

        options = StitchOptions(dtype, mask_to_tissue)
        if dry_run:
            planned = plan_segmentation(open_store(probabilities, "probabilities")[1], options)
            say_segmentation(out, planned, 1 if dtype == "uint8" else 4)
            return
        result = stitch_store(probabilities, out, options, threads=threads, dask=dask, progress=run.progress)
        run.facts.update(stitch_facts(result))


def vectorize(
    segmentation: Annotated[Path, typer.Argument(help="The segmentation store (OME-Zarr).")],
    out: Annotated[Path, typer.Option("--out", help="The GeoJSON to write, e.g. a/segmentation.geojson.gz.")],
    tolerance: Annotated[float | None, typer.Option(min=0, help="Simplification, um; default: 3/4 map pixel.")] = None,
    min_area: Annotated[float, typer.Option(min=0, help="Merge smaller islands into their surroundings, um^2.")] = 25.0,
    min_hole: Annotated[float, typer.Option(min=0, help="Fill smaller holes, um^2.")] = 25.0,
    objects: Annotated[
        Literal["regions", "classes"], typer.Option(help="One object a connected region, or one a class.")
    ] = "regions",
    object_type: Annotated[
        Literal["annotation", "detection"], typer.Option(help="QuPath's kind of object.")
    ] = "annotation",
    frame: Annotated[
        Literal["qupath", "slide"], typer.Option(help="QuPath's coordinates (cropped to bounds) or the slide's.")
    ] = "qupath",
    max_vertices: Annotated[
        int, typer.Option(min=0, help="Cut larger objects into pieces that fit each other; 0: never.")
    ] = 20_000,
    max_objects: Annotated[
        int | None,
        typer.Option(min=0, help="Warn above; default: 1000 annotations or 200000 detections; 0: never."),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, hidden=True, help="Of no effect: one thread does it.")] = 1,
    record: Record = None,
    dry_run: DryRun = False,
) -> None:
    """Stage 4: turn the class map into polygons that QuPath opens.

    Example: sampath-wsi vectorize a/segmentation.ome.zarr --out a/segmentation.geojson.gz
    """
    with stage_run("vectorize", str(segmentation), None if dry_run else record) as run:
        from sampath_wsi.facts import vectorize_facts
        from sampath_wsi.runs.validation import check_finite
        from sampath_wsi.stages.vectorize.options import VectorizeOptions
        from sampath_wsi.stages.vectorize.stage import vectorize as vectorize_store

        check_finite(tolerance=tolerance, min_area=min_area, min_hole=min_hole)
        options = VectorizeOptions(
            tolerance, min_area, min_hole, objects, object_type, frame, max_vertices, max_objects
        )
        if dry_run:
            say_objects(out, segmentation)
            return
        result = vectorize_store(segmentation, out, options, progress=run.progress)
        run.facts.update(vectorize_facts(result))
        if result.cut_objects:
            log.info(
                "vectorize: %d objects of more than %d vertices were cut into %d pieces (max_vertices)",
                result.cut_objects,
                max_vertices,
                result.pieces,
            )
