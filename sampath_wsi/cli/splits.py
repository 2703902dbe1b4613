"""The commands about splits: prepare split, prepare check."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from sampath_wsi.cli.run import log, shown_progress, stage_run

Data = Annotated[Path, typer.Argument(help="The prepared data.")]


def add_split_commands(group: typer.Typer) -> None:
    """Add the commands of this module to the group `prepare`."""
    group.command()(split)
    group.command()(check)


def split(
    data: Data,
    out: Annotated[Path, typer.Argument(help="The splits file to write (.csv).")],
    folds: Annotated[int | None, typer.Option(min=2, help="Deal the groups to so many folds.")] = None,
    fold: Annotated[int, typer.Option(min=0, help="The fold that validates.")] = 0,
    val_share: Annotated[
        float | None, typer.Option("--val-share", help="Deal this share of the samples to validation, e.g. 0.2.")
    ] = None,
    authors: Annotated[
        str | None, typer.Option(help="The authors' folds: their CSV, its address, or 'bcss' or 'crag' to download it.")
    ] = None,
    within: Annotated[list[str] | None, typer.Option(help="A split to deal anew; may be repeated. [train]")] = None,
    disjoint_from: Annotated[
        str | None, typer.Option("--disjoint-from", help="Leave out training samples whose group is in this split.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Everything random is drawn from it.")] = 0,
) -> None:
    """Say anew which samples train and which validate: whole patients or slides at a time, with a seed.

    Example: sampath-wsi prepare split data/glas data/glas-disjoint.csv --folds 5 --disjoint-from testA
    """
    with stage_run("prepare split", str(data), None) as run:
        from sampath_wsi.training.data.leakage import leakage_of
        from sampath_wsi.training.data.prepared import read_prepared
        from sampath_wsi.training.data.split_plan import SplitPlan, make_splits
        from sampath_wsi.training.data.splits import write_splits

        plan = SplitPlan(folds, fold, val_share, authors, within or (), disjoint_from, seed)
        prepared = read_prepared(data)
        samples = make_splits(prepared, plan)
        write_splits(out, samples)
        for name in sorted({s.split for s in samples}):
            groups = [s.group for s in samples if s.split == name]
            log.info("prepare split: %s: %d samples of %d groups", name, len(groups), len(set(groups)))
        if left_out := len(prepared.samples) - len(samples):
            log.info("prepare split: %d samples are left out", left_out)
        report = leakage_of(replace(prepared, samples=samples))
        run.facts["warnings"] = [report.summary] if report.leaks else []


def check(
    data: Data,
    splits: Annotated[Path | None, typer.Option("--splits", help="A splits file, instead of the data's own.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The report to write (JSON).")] = None,
    pixels: Annotated[bool, typer.Option("--pixels", help="Also look for the same image under two names.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 2 if anything leaks.")] = False,
) -> None:
    """Report leakage: patients, slides, regions, pixels or images that occur in two splits.

    Example: sampath-wsi prepare check data/glas --out glas-leakage.json
    """
    from sampath_wsi.files import write_json
    from sampath_wsi.training.data.leakage import leakage_of
    from sampath_wsi.training.data.prepared import read_prepared

    with shown_progress("prepare check") as progress:
        report = leakage_of(read_prepared(data, splits), hash_pixels=pixels, progress=progress)
    if out is not None:
        write_json(out, report.to_json())
    print(f"{data}: {', '.join(f'{n} samples in {name}' for name, n in report.samples.items())}")
    for line in report.leaks or (report.summary,):
        print(f"  {line}")
    if strict and report.leaks:
        raise typer.Exit(2)
