"""The commands `prepare ...`: training data in the one layout, from data sets, annotated slides, or nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sampath_wsi.cli.help import App
from sampath_wsi.cli.run import log, stage_run
from sampath_wsi.cli.splits import add_split_commands

if TYPE_CHECKING:
    from sampath_wsi.training.data.prepare.tally import Summary

group = App(
    help="""Prepare training data, and split them.

    Example: sampath-wsi prepare annotations annotated.tsv data/mine --mpp 0.5
    """
)

Source = Annotated[Path, typer.Argument(help="The folder of the download.")]
Out = Annotated[Path, typer.Argument(help="The folder to write.")]
CodingFile = Annotated[
    Path | None, typer.Option("--coding", help="Class coding (YAML) in place of the data set's own.")
]
TilePx = Annotated[
    int | None,
    typer.Option("--tile-px", min=0, help="Cut tiles of this side; 0 keeps images whole. [the coding's]"),
]
Mpp = Annotated[float | None, typer.Option("--mpp", min=0.02, help="True mpp of the images, um/px. [the data set's]")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    group.command()(bcss)
    group.command()(crag)
    group.command()(glas)
    group.command("annotations")(annotated)
    group.command()(synthetic)
    group.command()(synthetic_glands)
    add_split_commands(group)
    app.add_typer(group, name="prepare")


def bcss(source: Source, out: Out, coding: CodingFile = None, tile_px: TilePx = None, mpp: Mpp = None) -> None:
    """Prepare BCSS (images/ and masks/, as its downloader leaves them), in tiles of 1024 px.

    Example: sampath-wsi prepare bcss downloads/BCSS data/bcss
    """
    from sampath_wsi.training.data.prepare.bcss import prepare_bcss

    _prepare(prepare_bcss, source, out, coding, tile_px=tile_px, mpp=mpp)


def crag(source: Source, out: Out, coding: CodingFile = None, tile_px: TilePx = None, mpp: Mpp = None) -> None:
    """Prepare CRAG (train/Images, train/Annotation, valid/Images, valid/Annotation).

    Example: sampath-wsi prepare crag downloads/CRAG data/crag
    """
    from sampath_wsi.training.data.prepare.crag import prepare_crag

    _prepare(prepare_crag, source, out, coding, tile_px=tile_px, mpp=mpp)


def glas(source: Source, out: Out, coding: CodingFile = None, tile_px: TilePx = None, mpp: Mpp = None) -> None:
    """Prepare GlaS (the archive's folder, or one with samples.csv, images/ and masks/).

    Example: sampath-wsi prepare glas downloads/GlaS data/glas
    """
    from sampath_wsi.training.data.prepare.glas import prepare_glas

    _prepare(prepare_glas, source, out, coding, tile_px=tile_px, mpp=mpp)


def annotated(
    sheet: Annotated[Path, typer.Argument(help="The slides and their GeoJSON (.tsv or .csv; see docs/data.md).")],
    out: Out,
    coding: Annotated[
        Path | None, typer.Option("--coding", help="Class coding (YAML). [every class name is a class]")
    ] = None,
    tile_px: Annotated[int | None, typer.Option("--tile-px", min=64, help="Side of a tile in pixels. [1024]")] = None,
    mpp: Annotated[float | None, typer.Option("--mpp", min=0.02, help="mpp of the tiles, um/px. [0.5]")] = None,
) -> None:
    """Prepare slides with annotations from QuPath.

    Example: sampath-wsi prepare annotations annotated.tsv data/mine --mpp 0.5
    """
    from sampath_wsi.training.data.prepare.annotations import prepare_annotations

    _prepare(prepare_annotations, sheet, out, coding, tile_px=tile_px, mpp=mpp)


def synthetic(
    out: Out,
    train_slides: Annotated[int, typer.Option(min=1, help="Slides to train on.")] = 48,
    val_slides: Annotated[int, typer.Option(min=1, help="Slides to validate on.")] = 8,
    tiles_per_slide: Annotated[int, typer.Option(min=1, help="Tiles cut from each slide.")] = 10,
    tile_px: Annotated[int, typer.Option(min=64, help="Side of a tile in pixels.")] = 512,
    mpp: Annotated[float, typer.Option(help="mpp of the tiles, um/px.")] = 0.5,
    seed: Annotated[int, typer.Option(help="Everything random is drawn from it.")] = 0,
) -> None:
    """Make training tiles of synthetic slides.

    Example: sampath-wsi prepare synthetic data/synthetic
    """
    with stage_run("prepare", str(out), None) as run:
        from sampath_wsi.training.data.prepare.synthetic import prepare_synthetic

        prepare_synthetic(
            out,
            train_slides=train_slides,
            val_slides=val_slides,
            tiles_per_slide=tiles_per_slide,
            tile_px=tile_px,
            mpp=mpp,
            seed=seed,
            progress=run.progress,
        )


def synthetic_glands(
    out: Out,
    images: Annotated[int, typer.Option(min=2, help="Pictures to paint.")] = 324,
    val_images: Annotated[int, typer.Option(min=1, help="How many of them, the last, are for validation.")] = 12,
    seed: Annotated[int, typer.Option(help="Everything random is drawn from it.")] = 100,
) -> None:
    """Paint pictures of glands, to begin a training with.

    Example: sampath-wsi prepare synthetic-glands data/synthetic-glands
    """
    with stage_run("prepare", str(out), None) as run:
        from sampath_wsi.training.data.prepare.synthetic_glands import prepare_synthetic_glands

        prepare_synthetic_glands(out, images=images, val_images=val_images, seed=seed, progress=run.progress)


def _prepare(prepare: Callable[..., Summary], source: Path, out: Path, coding: Path | None, **options: Any) -> None:
    """Run a preparation with its progress; log its warnings and its summary."""
    with stage_run("prepare", str(source), None) as run:
        from sampath_wsi.training.data.prepare.coding import load_coding

        chosen = None if coding is None else load_coding(coding)
        summary = prepare(source, out, coding=chosen, progress=run.progress, **options)
        run.facts["warnings"] = summary.warnings
        log.info("prepare: %s", summary)
