"""The commands that make data and models: demo-slide, prepare, train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sampath_wsi.cli.run import log, stage_run

prepare = typer.Typer(help="Prepare training data.", no_args_is_help=True, rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("demo-slide")(demo_slide)
    app.command()(train)
    app.add_typer(prepare, name="prepare")


@prepare.callback()
def _prepare() -> None:
    """Keep `prepare` a group of commands, whatever their number."""


def demo_slide(
    out: Annotated[Path, typer.Argument(help="The slide to write (.tif).")],
    truth: Annotated[Path | None, typer.Option("--truth", help="Also write its true class map (.tif).")] = None,
    width: Annotated[int, typer.Option(min=512, help="Width in pixels.")] = 8000,
    height: Annotated[int, typer.Option(min=512, help="Height in pixels.")] = 6000,
    mpp: Annotated[float, typer.Option(min=0.1, max=2, help="Micrometres a pixel.")] = 0.25,
    seed: Annotated[int, typer.Option(help="Everything random is drawn from it.")] = 7,
) -> None:
    """Make an H&E-like synthetic slide with a known class map.

    Example: sampath-wsi demo-slide data/demo/demo.tif --truth data/demo/demo.truth.tif
    """
    with stage_run("demo-slide", str(out), None):
        from sampath_wsi.synthetic import make_slide

        make_slide(out, truth, width_px=width, height_px=height, mpp=mpp, seed=seed)


@prepare.command()
def synthetic(
    out: Annotated[Path, typer.Argument(help="The folder to write.")],
    train_slides: Annotated[int, typer.Option(min=1, help="Slides to train on.")] = 48,
    val_slides: Annotated[int, typer.Option(min=1, help="Slides to validate on.")] = 8,
    tiles_per_slide: Annotated[int, typer.Option(min=1, help="Tiles cut from each slide.")] = 10,
    tile_px: Annotated[int, typer.Option(min=64, help="Side of a tile in pixels.")] = 512,
    mpp: Annotated[float, typer.Option(help="Resolution of the tiles, um/px.")] = 0.5,
    seed: Annotated[int, typer.Option(help="Everything random is drawn from it.")] = 0,
) -> None:
    """Make training tiles of synthetic slides.

    Example: sampath-wsi prepare synthetic data/synthetic
    """
    with stage_run("prepare", str(out), None):
        from sampath_wsi.train.prepare_synthetic import prepare_synthetic

        prepare_synthetic(
            out,
            train_slides=train_slides,
            val_slides=val_slides,
            tiles_per_slide=tiles_per_slide,
            tile_px=tile_px,
            mpp=mpp,
            seed=seed,
        )


def train(
    recipe: Annotated[Path, typer.Argument(help="The recipe (YAML), e.g. config/experiments/demo.yaml.")],
    data: Annotated[Path, typer.Option("--data", help="The prepared data.")],
    out: Annotated[Path, typer.Option("--out", help="The folder of the run; the model is in OUT/model.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that was begun in OUT.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or gpu.")] = "auto",
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads; default: all cores.")] = None,
) -> None:
    """Train a SAM-Path model.

    Example: sampath-wsi train config/experiments/demo.yaml --data data/synthetic --out runs/demo
    """
    with stage_run("train", str(recipe), None):
        from sampath_wsi.train.loop import train as train_model

        bundle = train_model(recipe, data, out, resume=resume, device=device, threads=threads, progress=True)
        log.info("train: the model is in %s", bundle)
