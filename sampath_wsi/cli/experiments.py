"""The commands of the paper's experiments: stand-ins for data and weights, reports."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sampath_wsi.cli.help import App
from sampath_wsi.cli.run import log, stage_run

group = App(
    help="""The paper's experiments: tables and figures.

    Example: sampath-wsi experiment report crag results/experiments/crag/official/test/*/scores.json --out tables
    """
)

DataSet = Annotated[str, typer.Argument(help="bcss, crag or glas.")]
Scores = Annotated[list[Path], typer.Argument(help="SPLIT/test/RUN/scores.json, vanilla/ROW/scores.json.")]
Out = Annotated[Path, typer.Option("--out", help="The folder to write.")]
Smoke = Annotated[bool, typer.Option("--smoke", help="Say that the numbers mean nothing.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("demo-data")(demo_data)
    app.command("demo-encoder")(demo_encoder)
    app.add_typer(group, name="experiment")


def demo_data(
    data_set: DataSet,
    out: Annotated[Path, typer.Argument(help="The folder to write.")],
    images: Annotated[int, typer.Option(min=4, help="How many images; every fourth is for testing.")] = 12,
    size: Annotated[int | None, typer.Option(min=64, help="Side in pixels; default: about as the real ones.")] = None,
    seed: Annotated[int, typer.Option(help="Everything random is drawn from it.")] = 0,
) -> None:
    """Make a synthetic stand-in of a data set, laid out as its users have it.

    Example: sampath-wsi demo-data glas data/glands --images 400
    """
    with stage_run("demo-data", str(out), None) as run:
        from sampath_wsi.synthetic.stand_ins import make_raw

        make_raw(data_set, out, images=images, size_px=size, seed=seed, progress=run.progress)


def demo_encoder(
    kind: Annotated[str, typer.Argument(help="sam or hipt.")],
    out: Annotated[Path, typer.Argument(help="The checkpoint to write (.pth).")],
    seed: Annotated[int, typer.Option(help="The weights are drawn from it.")] = 0,
) -> None:
    """Make a tiny encoder checkpoint of random weights, in the format of the public ones, for trying things out.

    Example: sampath-wsi demo-encoder sam tiny-sam.pth
    """
    with stage_run("demo-encoder", str(out), None):
        from sampath_wsi.synthetic.stand_ins import write_tiny_encoder

        write_tiny_encoder(kind, out, seed)


@group.command()
def report(
    data_set: DataSet,
    scores: Scores,
    out: Out,
    leakage: Annotated[
        list[Path] | None, typer.Option(help="SPLIT/leakage.json of `prepare check`; may be repeated.")
    ] = None,
    smoke: Smoke = False,
) -> None:
    """Write Table 1, the classes' scores and the prediction times beside what the paper printed.

    Example: sampath-wsi experiment report crag results/experiments/crag/official/test/*/scores.json --out tables
    """
    with stage_run("experiment report", data_set, None):
        from sampath_wsi.training.experiments.report import write_report

        write_report(data_set, scores, leakage or [], out, smoke=smoke)
        log.info("experiment report: %s", out / "report.md")


@group.command()
def sweep(
    data_set: DataSet,
    scores: Scores,
    out: Out,
    alpha: Annotated[float, typer.Option(help="The recipe's alpha: runs that do not name another have it.")],
    beta: Annotated[float, typer.Option(help="The recipe's beta, likewise.")],
    smoke: Smoke = False,
) -> None:
    """Write Figure 4: Dice over the weights of the loss.

    Example: sampath-wsi experiment sweep crag crag/official/test/*/scores.json --alpha 0.125 --beta 0 --out tables
    """
    with stage_run("experiment sweep", data_set, None):
        from sampath_wsi.training.experiments.report import write_sweep

        write_sweep(data_set, scores, (alpha, beta), out, smoke=smoke)
        log.info("experiment sweep: %s", out / "sweep.md")
