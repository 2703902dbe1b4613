"""The commands that look at results: report, cohort, evaluate, show, check."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sampath_wsi.cli.run import log, stage_run
from sampath_wsi.cli.stages import Mpp, Record
from sampath_wsi.errors import ConfigError, StoreError

_SHOWN = {
    "segmentation.geojson.gz": "Objects for QuPath",
    "segmentation.ome.zarr": "Probabilities and classes",
    "overlay.png": "Picture",
    "summary.json": "Summary",
    "evaluation.json": "Scores",
}


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for command in (report, cohort, evaluate, show, check):
        app.command()(command)


def report(
    slide: Annotated[Path, typer.Argument(help="The slide.")],
    segmentation: Annotated[Path, typer.Argument(help="Its segmentation store.")],
    overlay: Annotated[Path, typer.Option("--overlay", help="The picture to write (PNG).")],
    summary: Annotated[Path, typer.Option("--summary", help="The summary to write (JSON).")],
    mpp: Mpp = None,
    record: Record = None,
) -> None:
    """Write a slide's overlay picture and summary.

    Example: sampath-wsi report a.svs a/segmentation.ome.zarr --overlay a/overlay.png --summary a/summary.json
    """
    with stage_run("report", str(slide), record):
        from sampath_wsi import report as reporting
        from sampath_wsi.sheet import parse_mpp
        from sampath_wsi.slide import inspect_slide

        info = inspect_slide(slide, mpp=parse_mpp(mpp) if mpp else (1.0, 1.0))
        reporting.overlay(info, segmentation, overlay)
        reporting.write_summary(segmentation, segmentation.parent / "run", summary)


def cohort(
    slides: Annotated[str, typer.Option("--slides", help="The sample sheet (.tsv), or a pattern of slides.")],
    results: Annotated[Path, typer.Option("--results", help="The folder of all results.")],
    out: Annotated[Path, typer.Option("--out", help="The table to write (tab-separated).")],
) -> None:
    """Write the cohort's table: a row a slide, failures and their reasons first.

    Example: sampath-wsi cohort --slides config/slides.tsv --results results --out results/cohort.tsv
    """
    from sampath_wsi.report import CohortRow, write_cohort
    from sampath_wsi.sheet import read_slides

    rows = [CohortRow(row.slide, results / "slides" / row.slide, row.extra) for row in read_slides(slides)]
    failed = write_cohort(rows, out)
    print(f"{out}: {len(rows) - len(failed)} of {len(rows)} slides finished")
    for slide, reason in failed.items():
        print(f"  {slide}: {reason}")


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
        from sampath_wsi.evaluate import evaluate as evaluate_store
        from sampath_wsi.files import write_json

        scores = evaluate_store(segmentation, truth, ignore=ignore)
        write_json(out, scores)
        for name, entry in scores["classes"].items():
            log.info("evaluate: Dice %.4f  %s", entry["dice"], name)
        log.info("evaluate: Dice %.4f  macro average", scores["macro"]["dice"])


def show(results: Annotated[Path, typer.Argument(help="The folder of all results.")] = Path("results")) -> None:
    """Print where the results of a run lie, and the Dice of slides whose true class map is known.

    Example: sampath-wsi show results
    """
    import json

    finished = sorted(results.glob("slides/*/summary.json"))
    if not finished:
        raise ConfigError(f"{results}: there are no results", "Run the workflow first, or name its output folder.")
    print(f"Cohort's table: {results / 'cohort.tsv'}")
    for path in finished:
        folder = path.parent
        print(f"\nSlide {folder.name}")
        for name, what in _SHOWN.items():
            if (folder / name).exists():
                print(f"  {what:28} {folder / name}")
        evaluation = folder / "evaluation.json"
        if evaluation.exists():
            scores = json.loads(evaluation.read_text())
            print("  Dice against the truth:")
            for name, entry in scores["classes"].items():
                print(f"    {name:26} {entry['dice']:.4f}")
            print(f"    {'macro average':26} {scores['macro']['dice']:.4f}")


def check(
    stores: Annotated[list[Path], typer.Argument(help="Finished stores (.zarr) of tile, infer or stitch.")],
    repair: Annotated[bool, typer.Option(help="Set aside what is damaged; its stage then makes that anew.")] = False,
) -> None:
    """Read stores from end to end and name every damaged chunk.

    Example: sampath-wsi check --repair results/slides/*/*.zarr
    """
    from sampath_wsi.integrity import find_damage, set_aside

    damaged = 0
    for store in stores:
        damage = find_damage(store)
        for each in damage:
            print(each.what)
        if not damage:
            print(f"{store}: whole")
            continue
        damaged += 1
        if repair:
            done = set_aside(store, damage)
            print(f"{store}: set aside with {done} finished shards; now run its stage, or snakemake {store}/zarr.json")
    if damaged and not repair:
        raise StoreError(f"{damaged} of {len(stores)} stores are damaged", "--repair keeps what is whole of them.")
