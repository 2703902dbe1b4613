"""The commands for QuPath: scripts, tiles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from sampath_wsi.cli.help import App
from sampath_wsi.cli.options import Record
from sampath_wsi.cli.run import log, stage_run

group = App(
    help="""What QuPath users need: scripts for its script editor, tiles for its measurement maps (docs/qupath.md).

    Example: sampath-wsi qupath scripts --out scripts --results results
    """
)


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.add_typer(group, name="qupath")


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
    segmentation: Annotated[Path, typer.Argument(help="The segmentation store (OME-Zarr).")],
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
