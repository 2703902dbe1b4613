"""The commands of the four stages: tile, infer, stitch, vectorize; and join, of the parts of a slide."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sampath_wsi.cli.dry_run import DryRun, say_objects, say_probabilities, say_segmentation, say_tiles
from sampath_wsi.cli.options import Flags, Model, ModelThreads, Mpp, Record, SlideId, Threads, flags_of
from sampath_wsi.cli.run import log, stage_run
from sampath_wsi.geometry import MppSource
from sampath_wsi.options import InferOptions, StitchOptions, TileOptions, VectorizeOptions

# Imports of the stages stand inside the commands: `sampath-wsi --help` must not load torch, and no stage loads
# what another needs.


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for command in (tile, infer, stitch, vectorize, join):
        app.command()(command)


@flags_of(TileOptions)
def tile(
    slide: Annotated[Path, typer.Argument(help="The slide.")],
    out: Annotated[Path, typer.Option("--out", help="The tile store to write, e.g. results/slides/a/tiles.zarr.")],
    options: Flags,
    model: Model = "demo",
    slide_id: SlideId = None,
    mpp: Mpp = None,
    mpp_source: Annotated[
        MppSource, typer.Option(help="Where mpp is given, for record and messages.")
    ] = "command line",
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
        _forget_parts(record)


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


def join(
    out: Annotated[Path, typer.Argument(help="The probability store, as given to `infer --out`.")],
    parts: Annotated[int, typer.Option(min=1, help="How many jobs shared the slide: 4 for --part 1/4 to 4/4.")],
    record: Record = None,
) -> None:
    """Join the parts of stage 2: the result is that of a single job, byte for byte.

    Example: sampath-wsi join a/probabilities.zarr --parts 4
    """
    with stage_run("infer", f"{out}, {parts} parts", record) as run:
        from sampath_wsi.stages.infer.parts import join as join_store

        facts = join_store(out, parts)
        run.facts.update(tiles=facts.get("tiles"), computed=facts.get("computed"), parts=parts)
        run.facts["device_busy"] = facts.get("device_busy")
        run.facts.update(_together(record))
        log.info("infer: %s tiles of %d parts", facts.get("tiles"), parts)
    _forget_parts(record)


def _forget_parts(record: Path | None) -> None:
    """Remove the records of a slide's parts (``infer-2-of-4.json`` beside ``infer.json``): the slide is finished."""
    for path in _records_of_parts(record):
        path.unlink()


def _records_of_parts(record: Path | None) -> list[Path]:
    return [] if record is None else sorted(record.parent.glob(f"{record.stem}-*-of-*.json"))


def _together(record: Path | None) -> dict[str, object]:
    """Return facts from the records of the parts: all devices, and the sum of the jobs' times."""
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in _records_of_parts(record)]
    if not runs:
        return {}
    facts = {key: ", ".join(sorted({str(run[key]) for run in runs if key in run})) for key in ("device", "precision")}
    return {**facts, "seconds": round(sum(run.get("seconds", 0) for run in runs), 3)}
