"""The commands that score models on prepared data: test, test-prompts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sampath_wsi.cli.options import Device, ModelArgument, ModelThreads, Precision
from sampath_wsi.cli.run import log, stage_run

if TYPE_CHECKING:
    from sampath_wsi.training.scoring.scores import Scores

Data = Annotated[Path, typer.Option("--data", help="The prepared data.")]
Splits = Annotated[Path | None, typer.Option("--splits", help="A splits file (CSV) instead of the data's own splits.")]
Split = Annotated[str, typer.Option("--split", help="Which split.")]
Out = Annotated[Path, typer.Option("--out", help="The folder to write: scores.json, counts.csv and more.")]
Maps = Annotated[bool, typer.Option("--maps", help="Also write predicted label maps, and pictures to look at.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("test")(score)
    app.command("test-prompts")(score_prompts)


def score(
    model: ModelArgument,
    data: Data,
    out: Out,
    split: Split = "test",
    splits: Splits = None,
    tta: Annotated[
        int,
        typer.Option(help="Test-time augmentation: the mean over 4 flips, or 8 flips and turns; 1: none."),
    ] = 1,
    min_area: Annotated[
        float, typer.Option(min=0, help="Merge regions smaller than this, um^2, into their surroundings.")
    ] = 0.0,
    device: Device = "auto",
    precision: Precision = "fp32",
    batch: Annotated[int | None, typer.Option(min=1, help="Windows a batch; default: by device.")] = None,
    threads: ModelThreads = None,
    maps: Maps = False,
) -> None:
    """Score a model on a split of prepared data; every pixel counts once.

    Example: sampath-wsi test runs/glas/model --data data/glas --split testA --out results/glas
    """
    with stage_run("test", model, None) as run:
        from sampath_wsi.training.scoring.testing import ScoringSpec, score_model

        spec = ScoringSpec(data, split, out, splits, device, threads, maps)
        scores = score_model(
            model, spec, tta=tta, min_area_um2=min_area, precision=precision, batch=batch, progress=run.progress
        )
        _report("test", scores, out)


def score_prompts(
    sam: Annotated[str, typer.Option("--sam", help="SAM's checkpoint: a path, or a name such as sam_vit_b.")],
    data: Data,
    out: Out,
    split: Split = "test",
    splits: Splits = None,
    drop_larger_than: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Post-processing: drop masks over this share of the image (paper: 0.5)."),
    ] = None,
    device: Device = "auto",
    threads: ModelThreads = None,
    maps: Maps = False,
) -> None:
    """Score vanilla SAM, prompted with one dot a gland, on a split of prepared data that have instances.

    Example: sampath-wsi test-prompts --sam sam_vit_b --data data/crag --out results/vanilla --drop-larger-than 0.5
    """
    with stage_run("test-prompts", sam, None) as run:
        from sampath_wsi.training.scoring.testing import ScoringSpec
        from sampath_wsi.training.scoring.testing import score_prompts as score_with_prompts

        spec = ScoringSpec(data, split, out, splits, device, threads, maps)
        scores = score_with_prompts(sam, spec, drop_larger_than=drop_larger_than, progress=run.progress)
        _report("test-prompts", scores, out)


def _report(stage: str, scores: Scores, out: Path) -> None:
    for name, score in scores.scores.items():
        if name.startswith("dice/") or name in ("macro/dice", "accuracy"):
            interval = "" if score.low is None else f" ({score.low:.4f} to {score.high:.4f})"
            log.info("%s: %.4f%s  %s", stage, score.value, interval, name)
    log.info("%s: all scores are in %s", stage, out / "scores.json")
