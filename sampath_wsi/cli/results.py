"""The commands that look at results: report, cohort, evaluate, show, check."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sampath_wsi.cli.dry_run import DryRun, say_pictures
from sampath_wsi.cli.options import Json, Mpp, Record
from sampath_wsi.cli.run import log, shown_progress, stage_run
from sampath_wsi.errors import ConfigError, StoreError
from sampath_wsi.results import RunResults, SlideResults

if TYPE_CHECKING:
    from sampath_wsi.cohort.table import SlideOutcome
    from sampath_wsi.model.card import ModelCard

# So many failures are printed with their reasons, and so many warnings.
_MOST_REASONS = 20


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for command in (report, cohort, evaluate, show, check):
        app.command()(command)


def report(
    slide: Annotated[Path, typer.Argument(help="The slide.")],
    segmentation: Annotated[Path, typer.Argument(help="Its segmentation store.")],
    overlay: Annotated[Path, typer.Option("--overlay", help="The picture to write (PNG).")],
    summary: Annotated[Path, typer.Option("--summary", help="The summary to write (JSON).")],
    thumbnail: Annotated[
        Path | None,
        typer.Option("--thumbnail", help="A small picture of the slide to write (JPEG); its classes go beside it."),
    ] = None,
    mpp: Mpp = None,
    record: Record = None,
    dry_run: DryRun = False,
) -> None:
    """Write a slide's overlay picture and summary.

    Example: sampath-wsi report a.svs a/segmentation.ome.zarr --overlay a/overlay.png --summary a/summary.json
    """
    with stage_run("report", str(slide), None if dry_run else record) as run:
        from sampath_wsi.runs.sheet import parse_mpp
        from sampath_wsi.slides import inspect_slide
        from sampath_wsi.stages.report import write_overlay, write_summary
        from sampath_wsi.stores.store import open_store

        info = inspect_slide(slide, mpp=parse_mpp(mpp) if mpp else (1.0, 1.0))
        if dry_run:
            made_by = open_store(segmentation, "segmentation")[1]
            files = [file for file in (overlay, summary, thumbnail) if file is not None]
            say_pictures(files, f"of {len(made_by.classes)} classes on {len(made_by.grid.tiles)} tiles")
            return
        write_overlay(info, segmentation, overlay, thumbnail)
        run.facts["warnings"] = write_summary(segmentation, SlideResults(segmentation.parent).records, summary)


def cohort(
    slides: Annotated[str, typer.Option("--slides", help="The sample sheet (.tsv), or a pattern of slides.")],
    results: Annotated[Path, typer.Option("--results", help="The folder of all results.")],
    out: Annotated[Path, typer.Option("--out", help="The table to write (tab-separated).")],
    page: Annotated[
        Path | None, typer.Option("--page", help="The page to write: one HTML file with table, plots and pictures.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Name or folder of the model whose card stands on the page.")
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(
            "--config", help="The run's configuration (a JSON text): what it asks for counts, and the page shows it."
        ),
    ] = None,
) -> None:
    """Write the cohort's table, failures and their reasons first, and its page.

    Both can be written at any time, also while slides are being worked on. The exit code is 2 if slides failed.

    Example: sampath-wsi cohort --slides config/slides.tsv --results results --out cohort.tsv --page cohort.html
    """
    from sampath_wsi.cohort.table import read_cohort, write_cohort
    from sampath_wsi.runs.sheet import read_slides

    settings = _read_settings(config)
    outcomes = read_cohort(read_slides(slides), results, settings)
    card = None
    try:
        if model:
            from sampath_wsi.model.zoo import installed_card

            card = installed_card(model)
        if page is not None:
            from sampath_wsi.cohort.page import write_page

            write_page(outcomes, results, page, table=out, card=card, config=settings)
    finally:
        write_cohort(outcomes, out, card)
        print_outcomes(outcomes, results, table=out, page=page, card=card)
    if any(outcome.state == "failed" for outcome in outcomes):
        raise typer.Exit(2)


def _read_settings(config: str | None) -> dict[str, object] | None:
    if not config:
        return None
    try:
        settings = json.loads(config)
    except ValueError as error:
        raise ConfigError(f"--config: not a JSON text: {error}") from None
    if not isinstance(settings, dict):
        raise ConfigError("--config: not a JSON object", 'Write it as {"key": value}.')
    return settings


def print_outcomes(
    outcomes: Sequence[SlideOutcome],
    results: Path,
    *,
    table: Path,
    page: Path | None,
    card: ModelCard | None = None,
    took: str = "",
) -> None:
    """Print the last lines of a run: how many slides are done, which are not and why, warnings, models, places.

    Of ``results``, ``table`` and ``page`` only those that exist are named.

    Parameters
    ----------
    card
        That of the model, which says what the model cannot do.
    took
        The time it took, as the first line tells it: ``", after 2 min"``.
    """
    missing = [outcome for outcome in outcomes if outcome.state != "done"]
    print(f"{len(outcomes) - len(missing)} of {len(outcomes)} slides are done{took}.")
    _print_reasons([f"{outcome.slide}: {outcome.reason}" for outcome in missing])
    if missing:
        print("Mend these slides or leave them out, then give the same command again: what is finished stays.")
    warned = [outcome for outcome in outcomes if outcome.warnings]
    if warned:
        print(f"{len(warned)} of {len(outcomes)} with warnings:")
        _print_reasons([f"{outcome.slide}: {'; '.join(outcome.warnings)}" for outcome in warned])
    for name, limits in dict.fromkeys((each.summary.model, each.limits(card)) for each in outcomes if each.summary):
        print(f"  {'Model':11} {name}{': ' if limits else ''}{limits}")
    run = RunResults(results)
    places = {
        "Page": page if page is not None and page.exists() else None,
        "Table": table if table.exists() else None,
        "For QuPath": run.slide("*").geojson if any(slide.geojson.exists() for slide in run.slides()) else None,
        "Logs": run.logs if run.logs.exists() else None,
    }
    for what, place in places.items():
        if place is not None:
            print(f"  {what:11} {place}")


def _print_reasons(lines: Sequence[str]) -> None:
    for line in lines[:_MOST_REASONS]:
        print(f"  {line}")
    if len(lines) > _MOST_REASONS:
        print(f"  and {len(lines) - _MOST_REASONS} more, see the table")


def shown_from(path: Path, start: Path) -> Path:
    """Return a path as somebody in the folder ``start`` would write it, if it is below."""
    return path.relative_to(start) if path.is_relative_to(start) else path


def evaluate(
    segmentation: Annotated[Path, typer.Argument(help="The segmentation store.")],
    truth: Annotated[Path, typer.Argument(help="The true class map: a TIFF of labels over the whole slide.")],
    out: Annotated[Path, typer.Option("--out", help="The scores to write (JSON).")],
    ignore: Annotated[
        int | None, typer.Option("--ignore", min=0, max=255, help="Value of the truth's pixels that nobody labelled.")
    ] = None,
    record: Record = None,
) -> None:
    """Compare a segmentation with a true class map.

    Example: sampath-wsi evaluate a/segmentation.ome.zarr a.truth.tif --out a/evaluation.json
    """
    with stage_run("evaluate", str(segmentation), record):
        from sampath_wsi.files import write_json
        from sampath_wsi.stages.evaluate import evaluate as evaluate_store

        scores = evaluate_store(segmentation, truth, ignore=ignore)
        write_json(out, scores)
        for name, entry in scores["classes"].items():
            log.info("evaluate: Dice %.4f  %s", entry["dice"], name)
        log.info("evaluate: Dice %.4f  macro average", scores["macro"]["dice"])


def show(
    results: Annotated[Path, typer.Argument(help="The folder of all results.")] = Path("results"), as_json: Json = False
) -> None:
    """Print where the results of a run lie, their warnings, and the Dice of slides whose true class map is known.

    Example: sampath-wsi show results
    """
    from sampath_wsi.cohort.table import files_of, read_dice, read_json

    run = RunResults(results)
    if not run.slides():
        raise ConfigError(f"{results}: there are no results", "Run the workflow first, or name its output folder.")
    finished = [slide for slide in run.slides() if slide.summary_file.exists()]
    unfinished = [slide.folder.name for slide in run.slides() if slide not in finished]
    files = [{text: path for text, path in files_of(slide).items() if path.exists()} for slide in finished]
    scores = [read_dice(slide.evaluation) for slide in finished]
    summaries = [read_json(slide.summary_file) for slide in finished]
    if as_json:
        slides = [
            {
                "slide": slide.folder.name,
                "model": summary.get("model"),
                "warnings": summary.get("warnings", []),
                "files": {path.name: str(path) for path in paths.values()},
                "dice": dice,
            }
            for slide, summary, paths, dice in zip(finished, summaries, files, scores, strict=True)
        ]
        cohort = {"page": str(run.page), "table": str(run.table)}
        print(json.dumps({"cohort": cohort, "slides": slides, "unfinished": unfinished}, indent=2))
        return
    print(f"Cohort's page:  {run.page}\nCohort's table: {run.table}")
    for slide, summary, paths, dice in zip(finished, summaries, files, scores, strict=True):
        print(f"\nSlide {slide.folder.name}")
        for warning in summary.get("warnings", []):
            print(f"  warning: {warning}")
        for text, path in paths.items():
            print(f"  {text:36} {path}")
        if dice:
            print("  Dice against the truth:")
        for name, value in dice.items():
            print(f"    {name:34} {value:.4f}")
    if unfinished:
        print(f"\nWithout a result, for reasons that the table gives: {', '.join(unfinished)}")


def check(
    stores: Annotated[list[Path], typer.Argument(help="Finished stores (.zarr) of tile, infer or stitch.")],
    repair: Annotated[bool, typer.Option(help="Set aside what is damaged; its stage then makes that anew.")] = False,
    as_json: Json = False,
) -> None:
    """Read stores from end to end and name every damaged chunk.

    Example: sampath-wsi check --repair results/slides/*/*.zarr
    """
    from sampath_wsi.stores.integrity import find_damage, set_aside

    found: dict[str, list[str]] = {}
    for store in stores:
        with shown_progress(f"check {store}") as progress:
            damage = find_damage(store, progress)
        found[str(store)] = [each.what for each in damage]
        lines = [*found[str(store)]] or [f"{store}: whole"]
        if damage and repair:
            done = set_aside(store, damage)
            lines.append(f"{store}: set aside with {done} finished shards; now run the workflow, or its stage, again")
        if not as_json:
            print("\n".join(lines), flush=True)
    if as_json:
        print(json.dumps({"damage": found, "repaired": repair}, indent=2))
    damaged = sum(map(bool, found.values()))
    if damaged and not repair:
        raise StoreError(f"{damaged} of {len(stores)} stores are damaged", "--repair keeps what is whole of them.")
