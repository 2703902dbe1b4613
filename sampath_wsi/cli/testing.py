"""The commands that score models on prepared data: test, test-prompts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sampath_wsi.cli.options import Flags, ModelArgument, flags_of
from sampath_wsi.cli.run import log, stage_run
from sampath_wsi.options import ModelScoringOptions, PromptScoringOptions

if TYPE_CHECKING:
    from sampath_wsi.training.scoring.scores import Scores

Data = Annotated[Path, typer.Option("--data", help="The prepared data.")]
Out = Annotated[Path, typer.Option("--out", help="The folder to write: scores.json, counts.csv and more.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("test")(score)
    app.command("test-prompts")(score_prompts)


@flags_of(ModelScoringOptions)
def score(model: ModelArgument, data: Data, out: Out, options: Flags) -> None:
    """Score a model on a split of prepared data; every pixel counts once.

    Example: sampath-wsi test runs/glas/model --data data/glas --split testA --out results/glas
    """
    with stage_run("test", model, None) as run:
        from sampath_wsi.training.scoring.testing import score_model

        _report("test", score_model(model, data, out, options, progress=run.progress), out)


@flags_of(PromptScoringOptions)
def score_prompts(
    sam: Annotated[str, typer.Option("--sam", help="SAM's checkpoint: a path, or a name such as sam_vit_b.")],
    data: Data,
    out: Out,
    options: Flags,
) -> None:
    """Score vanilla SAM, prompted with one dot a gland, on a split of prepared data that have instances.

    Example: sampath-wsi test-prompts --sam sam_vit_b --data data/crag --out results/vanilla --drop-larger-than 0.5
    """
    with stage_run("test-prompts", sam, None) as run:
        from sampath_wsi.training.scoring import testing

        _report("test-prompts", testing.score_prompts(sam, data, out, options, progress=run.progress), out)


def _report(stage: str, scores: Scores, out: Path) -> None:
    for name, score in scores.scores.items():
        if name.startswith("dice/") or name in ("macro/dice", "accuracy"):
            log.info("%s: %s  %s", stage, score, name)
    log.info("%s: all scores are in %s", stage, out / "scores.json")
