"""The commands that make data and models: demo-slide, train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sampath_wsi.cli.dry_run import DryRun, say_training
from sampath_wsi.cli.options import Device, ModelThreads
from sampath_wsi.cli.run import log, stage_run


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("demo-slide")(demo_slide)
    app.command()(train)


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
    with stage_run("demo-slide", str(out), None) as run:
        from sampath_wsi.synthetic import make_slide

        make_slide(out, truth, width_px=width, height_px=height, mpp=mpp, seed=seed, progress=run.progress)


def train(
    recipe: Annotated[Path, typer.Argument(help="The recipe (YAML), e.g. config/experiments/demo.yaml.")],
    data: Annotated[Path, typer.Option("--data", help="The prepared data.")],
    out: Annotated[Path, typer.Option("--out", help="The folder of the run; the model is in OUT/model.")],
    splits: Annotated[Path | None, typer.Option("--splits", help="CSV (sample, split) instead of the data's.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Set a key of the recipe, e.g. loss.focal=0.5; may be repeated.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that was begun in OUT.")] = False,
    device: Device = "auto",
    devices: Annotated[int, typer.Option(min=1, help="How many of them: GPUs, or processes on the CPU.")] = 1,
    threads: ModelThreads = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=0, help="Processes that read tiles for each device; default: by device."),
    ] = None,
    checkpoint_minutes: Annotated[
        float, typer.Option(min=0, help="Time between checkpoints within an epoch; 0: after every step.")
    ] = 10.0,
    dry_run: DryRun = False,
) -> None:
    """Train a SAM-Path model.

    Example: sampath-wsi train config/experiments/demo.yaml --data data/synthetic --out runs/demo
    """
    with stage_run("train", str(recipe), None) as shown:
        from sampath_wsi.training.run import Run, RunOptions

        options = RunOptions(device, devices, threads, workers, checkpoint_minutes)
        run = Run(recipe, data, out, splits=splits, overrides=set_ or (), resume=resume, options=options)
        if dry_run:
            say_training(run)
            return
        from sampath_wsi.training.train import train as train_model

        log.info("train: the model is in %s", train_model(run, shown.progress))
