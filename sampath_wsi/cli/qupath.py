"""The commands for QuPath: pictures to open beside a slide, scripts, tiles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from sampath_wsi.cli.dry_run import DryRun, say_pictures
from sampath_wsi.cli.help import App
from sampath_wsi.cli.options import Flags, Record, Threads, flags_of
from sampath_wsi.cli.run import log, stage_run
from sampath_wsi.options import ImageOptions

Segmentation = Annotated[Path, typer.Argument(help="The segmentation store (OME-Zarr).")]

group = App(
    help="""What QuPath users need: scripts for its script editor, tiles for its measurement maps (docs/qupath.md).

    Example: sampath-wsi qupath scripts --out scripts --results results
    """
)


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(images)
    app.add_typer(group, name="qupath")


@flags_of(ImageOptions)
def images(
    segmentation: Segmentation,
    out_dir: Annotated[Path, typer.Option("--out-dir", help="The folder to write into, e.g. results/slides/a.")],
    options: Flags,
    threads: Threads = 2,
    record: Record = None,
    dry_run: DryRun = False,
) -> None:
    """Write class map, probability and uncertainty as OME-TIFFs that QuPath opens beside the slide.

    Example: sampath-wsi images a/segmentation.ome.zarr --out-dir a --classes --probability Tumor --entropy
    """
    with stage_run("images", str(segmentation), None if dry_run else record) as run:
        from sampath_wsi.stages.images import plan_images, write_images

        chosen = ImageOptions.of(options, "images")
        if dry_run:
            names, frame = plan_images(segmentation, chosen)
            say_pictures([out_dir / name for name in names], f"{frame.size_px[0]} x {frame.size_px[1]} px")
            return
        written = write_images(segmentation, out_dir, chosen, threads=threads, progress=run.progress)
        run.facts.update(files=[path.name for path in written])
        log.info("images: %s", ", ".join(map(str, written)))


@group.command()
def scripts(
    out: Annotated[Path, typer.Option("--out", help="The folder to write them to.")],
    results: Annotated[
        Path | None, typer.Option("--results", help="Results that the import script reads; default: QuPath asks.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace scripts there that differ.")] = False,
) -> None:
    """Write the scripts that import results into a QuPath project and export annotations from it.

    Example: sampath-wsi qupath scripts --out scripts --results results
    """
    from sampath_wsi.qupath.scripts import write_scripts

    for path in write_scripts(out, results=results, force=force):
        print(path)


@group.command()
def tiles(
    segmentation: Segmentation,
    out: Annotated[Path, typer.Option("--out", help="The GeoJSON to write, e.g. a/tiles.geojson.gz.")],
    frame: Annotated[
        Literal["qupath", "slide"], typer.Option(help="QuPath's coordinates (cropped to bounds) or the slide's.")
    ] = "qupath",
    record: Record = None,
) -> None:
    """Write a tile object for every tile, with its mean probabilities, for QuPath's measurement maps.

    Example: sampath-wsi qupath tiles a/segmentation.ome.zarr --out a/tiles.geojson.gz
    """
    with stage_run("tile-objects", str(segmentation), record) as run:
        from sampath_wsi.stages.vectorize.tiles import write_tile_objects

        result = write_tile_objects(segmentation, out, frame=frame, progress=run.progress)
        run.facts.update(objects=result.tiles, left_out=result.left_out, frame=frame)
        log.info("tile-objects: %d tiles; %d without tissue of their own", sum(result.tiles.values()), result.left_out)
