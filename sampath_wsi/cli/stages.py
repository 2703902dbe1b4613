"""The commands of the four stages: tile, infer, stitch, vectorize."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sampath_wsi.cli.dry_run import DryRun, say_objects, say_probabilities, say_segmentation, say_tiles
from sampath_wsi.cli.joining import forget_parts
from sampath_wsi.cli.options import Flags, Model, ModelThreads, Mpp, Record, SlideId, Threads, flags_of
from sampath_wsi.cli.run import stage_run
from sampath_wsi.geometry import MppSource
from sampath_wsi.options import InferOptions, StitchOptions, TileOptions, VectorizeOptions

# Imports of the stages stand inside the commands: `sampath-wsi --help` must not load torch, and no stage loads
# what another needs.


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for command in (tile, infer, stitch, vectorize):
        app.command()(command)


@flags_of(TileOptions)
def tile(
    slide: Annotated[Path, typer.Argument(help="The slide.")],
    out: Annotated[Path, typer.Option("--out", help="The tile store to write, e.g. results/slides/a/tiles.zarr.")],
    options: Flags,
    model: Model = "demo",
    slide_id: SlideId = None,
    mpp: Mpp = None,
    mpp_source: Annotated[MppSource, typer.Option(help="Where --mpp comes from, for the record.")] = "command line",
    tissue_mask: Annotated[Path | None, typer.Option(help="Image of the whole slide: not 0 is tissue.")] = None,
    roi: Annotated[Path | None, typer.Option(help="QuPath annotations that limit what is segmented.")] = None,
    threads: Threads = 2,
    record: Record = None,
    dry_run: DryRun = False,
) -> None:
    """Stage 1: cut the tissue of a slide into tiles at the model's mpp.

    Example: sampath-wsi tile a.svs --out a/tiles.zarr --model demo
    """
    with stage_run("tile", str(slide), None if dry_run else record) as run:
        from sampath_wsi import pipeline
        from sampath_wsi.runs.sheet import SheetRow, safe_id
        from sampath_wsi.stages.tile import plan_tiles

        row = SheetRow.model_construct(
            slide=slide_id or safe_id(slide.stem),
            path=str(slide),
            mpp=mpp or "",
            tissue_mask=str(tissue_mask or ""),
            roi=str(roi or ""),
        )
        request = pipeline.tile_request(row, model=model, options=options, mpp_source=mpp_source)
        plan = plan_tiles(request, threads=threads, progress=run.progress)
        if dry_run:
            say_tiles(out, plan)
        else:
            run.facts.update(pipeline.tile(request, plan, out, threads=threads, progress=run.progress).facts)


@flags_of(InferOptions, without=["parts"])
def infer(
    tiles: Annotated[Path, typer.Argument(help="The tile store.")],
    out: Annotated[Path, typer.Option("--out", help="The probability store to write.")],
    options: Flags,
    model: Model = "demo",
    part: Annotated[
        str | None, typer.Option(metavar="K/N", help="Only the K-th of N parts of the slide; then `sampath-wsi join`.")
    ] = None,
    threads: ModelThreads = None,
    record: Record = None,
    dry_run: DryRun = False,
) -> None:
    """Stage 2: run SAM-Path on every tile.

    Example: sampath-wsi infer a/tiles.zarr --out a/probabilities.zarr --model demo
    """
    with stage_run("infer", str(tiles), None if dry_run else record) as run:
        from sampath_wsi import pipeline
        from sampath_wsi.stages.infer.parts import Part

        which = Part.parse(part) if part else None
        with pipeline.ready_model(model, options, threads=threads, hold=not dry_run) as ready:
            if dry_run:
                say_probabilities(out, tiles, ready, which)
                return
            run.facts.update(pipeline.infer(tiles, out, ready, part=which, progress=run.progress).facts)
    if which is None:
        forget_parts(record)


@flags_of(StitchOptions)
def stitch(
    probabilities: Annotated[Path, typer.Argument(help="The probability store.")],
    out: Annotated[Path, typer.Option("--out", help="The OME-Zarr to write, e.g. a/segmentation.ome.zarr.")],
    options: Flags,
    threads: Threads = 2,
    record: Record = None,
    dry_run: DryRun = False,
) -> None:
    """Stage 3: blend the tiles' probabilities into one map, an OME-Zarr pyramid.

    Example: sampath-wsi stitch a/probabilities.zarr --out a/segmentation.ome.zarr
    """
    with stage_run("stitch", str(probabilities), None if dry_run else record) as run:
        if dry_run:
            say_segmentation(out, probabilities, StitchOptions.of(options, "stitch"))
            return
        from sampath_wsi import pipeline

        run.facts.update(pipeline.stitch(probabilities, out, options, threads=threads, progress=run.progress).facts)


@flags_of(VectorizeOptions, without=["tiles"])
def vectorize(
    segmentation: Annotated[Path, typer.Argument(help="The segmentation store (OME-Zarr).")],
    out: Annotated[Path, typer.Option("--out", help="The GeoJSON to write, e.g. a/segmentation.geojson.gz.")],
    options: Flags,
    threads: Annotated[int, typer.Option(min=1, hidden=True, help="Of no effect: one thread does it.")] = 1,
    record: Record = None,
    dry_run: DryRun = False,
) -> None:
    """Stage 4: turn the class map into polygons that QuPath opens.

    Example: sampath-wsi vectorize a/segmentation.ome.zarr --out a/segmentation.geojson.gz
    """
    with stage_run("vectorize", str(segmentation), None if dry_run else record) as run:
        if dry_run:
            say_objects(out, segmentation)
            return
        from sampath_wsi import pipeline

        run.facts.update(pipeline.vectorize(segmentation, out, options, progress=run.progress).facts)
