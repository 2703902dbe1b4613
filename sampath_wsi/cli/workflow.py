"""The command that runs the whole workflow, and the one that copies a cluster's profile."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sampath_wsi.cli.help import Command
from sampath_wsi.cli.options import complete_model
from sampath_wsi.cli.results import print_outcomes, shown_from
from sampath_wsi.errors import ConfigError
from sampath_wsi.results import RunResults

if TYPE_CHECKING:
    from sampath_wsi.cohort.table import SlideOutcome
    from sampath_wsi.runs.plan import RunPlan

# Why Snakemake does a job again, in words for the plan; other jobs only follow from these, or are new.
_CHANGES = {
    "Params have changed": "options changed",
    "Updated input files": "its input changed",
    "Set of input files has changed": "its inputs changed",
    "Forced execution": "forced",
}


class _PassesOn(Command):
    """A command whose words after ``--`` are for Snakemake."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        own, further = (args[: args.index("--")], args[args.index("--") + 1 :]) if "--" in args else (args, [])
        ctx.meta["further"] = further
        return super().parse_args(ctx, own)


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(cls=_PassesOn)(run)
    app.command()(profile)


def run(
    ctx: typer.Context,
    slides: Annotated[
        str | None, typer.Option("--slides", help="A pattern of slides, 'data/*.svs', or a sample sheet (.tsv).")
    ] = None,
    more: Annotated[list[str] | None, typer.Argument(metavar="[SLIDE]...", help="More slides.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The folder of all results; default: results.")] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="Name of a model in the zoo, or path of a bundle; for demonstration slides demo is the default.",
            autocompletion=complete_model,
        ),
    ] = None,
    cores: Annotated[int | None, typer.Option("--cores", min=1, help="CPU cores; default: all.")] = None,
    gpus: Annotated[
        int | None, typer.Option("--gpus", min=0, help="How many GPU jobs run at once; default: a job a GPU.")
    ] = None,
    config: Annotated[
        list[str] | None,
        typer.Option("--config", metavar="KEY=VALUE", help="Set a key: --config vectorize.tolerance=0. Repeatable."),
    ] = None,
    config_file: Annotated[
        Path | None, typer.Option("--config-file", help="A configuration (YAML) with any of the keys.")
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option("--profile", help="Submit to a cluster: slurm, lsf, pbs, sge, kubernetes, or a folder."),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Overwrite results of another model in the output folder.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Say what would be done, slide by slide.")] = False,
) -> None:
    """Segment all slides: the whole workflow, which goes on where it was cut off. What follows -- is for Snakemake.

    Example: sampath-wsi run --slides 'data/*.svs' --model glas-tiny --out results
    """
    from sampath_wsi.runs.chosen_model import check_folder
    from sampath_wsi.runs.plan import plan_run, profile_path

    plan = plan_run([*([slides] if slides else []), *(more or [])], out, model, config or (), config_file)
    if not replace:
        check_folder(plan.out, plan.card)
    options = {
        "cores": cores,
        "gpus": gpus,
        "profile": profile_path(profile) if profile else None,
        "further": ctx.meta["further"],
    }
    if dry_run:
        _show_plan(plan, options)
    else:
        _run(plan, options)


def profile(
    name: Annotated[str, typer.Argument(help="slurm, lsf, pbs, sge or kubernetes.")],
    out: Annotated[Path, typer.Option("--out", help="The folder to make.")],
) -> None:
    """Copy the profile of a kind of cluster, to fill in what your site needs, for `run --profile FOLDER`.

    Example: sampath-wsi profile slurm --out my-cluster
    """
    import shutil

    from sampath_wsi.runs.plan import PROFILES, shipped_profiles

    if name not in shipped_profiles():
        raise ConfigError(f"there is no profile '{name}'", f"Use one of: {', '.join(shipped_profiles())}.")
    if out.exists():
        raise ConfigError(f"{out}: it is there already", "Name a new folder.")
    shutil.copytree(PROFILES / name, out)
    print(f"Fill in the lines marked SITE in {out / 'config.yaml'}, then: sampath-wsi run --profile ./{out} ...")


def _run(plan: RunPlan, options: dict[str, Any]) -> None:
    from sampath_wsi.progress import duration
    from sampath_wsi.runs.display import RUN_FROM
    from sampath_wsi.runs.plan import snakemake_command, snakemake_environment
    from sampath_wsi.runs.process import held_folder, run_snakemake

    begun = time.monotonic()
    with held_folder(plan.out) as lock:
        command = snakemake_command(plan.out, plan.write(plan.out), **options)
        _print_beginning(plan)
        silent = not options["further"]
        environment = {**snakemake_environment(os.environ), RUN_FROM: str(Path.cwd())}
        code = run_snakemake(command, environment, lock=lock, silent=silent)
    outcomes = _outcomes(plan)
    shown, took = _short(plan.out), f", after {duration(time.monotonic() - begun)}"
    run = RunResults(shown)
    print_outcomes(outcomes, shown, table=run.table, page=run.page, card=plan.card, took=took)
    if code:
        raise typer.Exit(1 if all(outcome.state == "done" for outcome in outcomes) else 2)


def _show_plan(plan: RunPlan, options: dict[str, Any]) -> None:
    """Print what a run would do with each slide. Nothing is written into the output folder."""
    import json

    from sampath_wsi.runs.display import PLANNED_JOBS
    from sampath_wsi.runs.plan import snakemake_command, snakemake_environment
    from sampath_wsi.runs.process import run_snakemake
    from sampath_wsi.runs.sheet import FILES

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sampath-wsi-")))
        (empty := folder / "out").mkdir()
        command = snakemake_command(
            plan.out if plan.out.is_dir() else empty, plan.write(folder), dry_run=True, **options
        )
        planned = folder / "jobs.json"
        environment = {**snakemake_environment(os.environ), PLANNED_JOBS: str(planned)}
        code = run_snakemake(command, environment, silent=True)
        if code:
            raise typer.Exit(2)
        jobs = json.loads(planned.read_text(encoding="utf-8"))
    _print_beginning(plan)
    width = max(len(row.slide) for row in plan.rows)
    for row in plan.rows:
        steps = [_step(job) for job in jobs if job["slide"] == row.slide]
        missing = [path for name in FILES if (path := getattr(row, name)) and not Path(path).exists()]
        notes = "".join(f"  ({path} does not exist)" for path in missing)
        print(f"  {row.slide:{width}}  {', '.join(steps) or 'finished'}{notes}")
    print("This was a dry run: nothing was done.")


def _step(job: dict[str, str]) -> str:
    why = [words for said, words in _CHANGES.items() if said in job["reason"]]
    return f"{job['step']} ({why[0]})" if why else job["step"]


def _print_beginning(plan: RunPlan) -> None:
    count = len(plan.rows)
    model = plan.config["model"]
    print(f"{count} slide{'s' if count > 1 else ''}, model {model} -> {_short(plan.out)}")
    if plan.card.limits:
        print(f"  {plan.card.name}: {plan.card.limits}")
    sys.stdout.flush()


def _outcomes(plan: RunPlan) -> list[SlideOutcome]:
    from sampath_wsi.cohort.table import read_cohort

    return read_cohort(plan.rows, plan.out, plan.config)


def _short(path: Path) -> Path:
    return shown_from(path, Path.cwd())
