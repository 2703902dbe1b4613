"""The command that writes pictures of a segmentation to open beside the slide."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from sampath_wsi.cli.dry_run import DryRun, say_pictures
from sampath_wsi.cli.options import Record, Threads
from sampath_wsi.cli.run import log, stage_run


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(images)


def images(
    segmentation: Annotated[Path, typer.Argument(help="The segmentation store (OME-Zarr).")],
    out_dir: Annotated[Path, typer.Option("--out-dir", help="The folder to write into, e.g. results/slides/a.")],
    classes: Annotated[bool, typer.Option(help="Write classes.ome.tif, the class map.")] = False,
    probability: Annotated[
        str | None, typer.Option(metavar="CLASS", help="Write probability.ome.tif: of this class, in percent.")
    ] = None,
    entropy: Annotated[
        bool, typer.Option(help="Write entropy.ome.tif: 0 one class is certain, 100 all are equally likely.")
    ] = False,
    style: Annotated[
        Literal["colors", "labels"], typer.Option(help="Class map in the classes' colours, or as numbers (0: none).")
    ] = "colors",
    threads: Threads = 2,
    record: Record = None,
    dry_run: DryRun = False,
) -> None:
    """Write class map, probability and uncertainty as OME-TIFFs that QuPath opens beside the slide.

    Example: sampath-wsi images a/segmentation.ome.zarr --out-dir a --classes --probability Tumor --entropy
    """
    with stage_run("images", str(segmentation), None if dry_run else record) as run:
        from sampath_wsi.stages.images import ImageOptions, plan_images, write_images

        options = ImageOptions(classes, probability, entropy, style)
        if dry_run:
            names, frame = plan_images(segmentation, options)
            say_pictures([out_dir / name for name in names], f"{frame.size_px[0]} x {frame.size_px[1]} px")
            return
        written = write_images(segmentation, out_dir, options, threads=threads, progress=run.progress)
        run.facts.update(files=[path.name for path in written])
        log.info("images: %s", ", ".join(map(str, written)))
