"""The commands that look before a run: doctor, inspect."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.filesize import decimal

from sampath_wsi.cli.options import Device, Json, Model, Mpp
from sampath_wsi.cli.run import shown_progress
from sampath_wsi.progress import duration

if TYPE_CHECKING:
    from sampath_wsi.runs.inspection import SlideReport


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(doctor)
    app.command()(inspect)


def doctor(
    results: Annotated[Path, typer.Option("--results", help="Where results will be written.")] = Path("results"),
    as_json: Json = False,
) -> None:
    """Check what is installed and the machine, and say what to do where something is wrong.

    Exits with 2 if anything fails; warnings alone are no failure.

    Example: sampath-wsi doctor
    """
    from sampath_wsi.machine.doctor import examine

    found = []
    for finding in examine(results):
        found.append(finding)
        if not as_json:
            print(f"{finding.status:5} {finding.check:16} {finding.text}", flush=True)
            if finding.remedy:
                print(f"{'':22} -> {finding.remedy}", flush=True)
    failed = sum(finding.status == "fail" for finding in found)
    if as_json:
        print(json.dumps({"ok": not failed, "findings": [asdict(finding) for finding in found]}, indent=2))
    else:
        warned = sum(finding.status == "warn" for finding in found)
        print(f"\n{len(found)} checks, {failed} failed, {warned} warning{'' if warned == 1 else 's'}")
    if failed:
        raise typer.Exit(2)


def inspect(
    slide: Annotated[Path, typer.Argument(help="The slide.")],
    model: Model = "demo",
    mpp: Mpp = None,
    device: Device = "auto",
    results: Annotated[
        Path, typer.Option("--results", help="Earlier results, if there are any: for the estimate of time.")
    ] = Path("results"),
    timing: Annotated[bool, typer.Option(help="Estimate the time, by running the model on some tiles.")] = True,
    as_json: Json = False,
) -> None:
    """Show a slide's levels, mpp, bounds and tissue, how many tiles a model would take, and how long that takes here.

    Example: sampath-wsi inspect a.svs --model demo
    """
    with shown_progress("inspect") as progress:
        from sampath_wsi.runs.inspection import inspect as inspect_slide
        from sampath_wsi.runs.sheet import parse_mpp

        report = inspect_slide(
            slide,
            model=model,
            mpp=parse_mpp(mpp) if mpp else None,
            device=device,
            results=results,
            timing=timing,
            progress=progress,
        )
    if as_json:
        print(json.dumps(asdict(report), indent=2))
    else:
        print("\n".join(_lines(report)))


def _lines(report: SlideReport) -> list[str]:
    width, height = report.size_level0_px
    rows = [("vendor", report.vendor), ("size", f"{width} x {height} px")]
    if report.mpp:
        x, y = report.mpp
        rows[-1] = ("size", f"{width} x {height} px, {width * x / 1000:.3g} x {height * y / 1000:.3g} mm")
        rows.append(("mpp", f"{_mpp(x, y)} ({report.mpp_source})"))
    left, top, *size = report.bounds_level0_px
    whole = (left, top, *size) == (0, 0, width, height)
    rows.append(("bounds", "the whole slide" if whole else f"{size[0]} x {size[1]} px at ({left}, {top})"))
    for number, level in enumerate(report.levels):
        mpp = f", {_mpp(*level.mpp)}" if level.mpp else ""
        across, down = level.size_px
        reader = "decoded directly" if level.reader == "direct" else "read by OpenSlide"
        rows.append((f"level {number}", f"{across} x {down} px, 1/{level.downsample:.6g}{mpp}, {reader}"))
    if report.tissue_share is not None and report.tissue_mm2 is not None and report.grid is not None:
        area = f"{report.tissue_mm2:.3f}" if report.tissue_mm2 < 10 else f"{report.tissue_mm2:,.1f}"
        rows.append(("tissue", f"{100 * report.tissue_share:.1f} % of the bounds, {area} mm^2"))
        what = f"{report.tile_px} px at {report.mpp_model:g} um/px, overlap {report.overlap_px} px"
        of = f"{report.tiles} of {report.grid[0]} x {report.grid[1]} for the model {report.model}"
        rows.append(("tiles", f"{of} ({what}), from level {report.level_read}"))
    if (made := report.estimate) is not None:
        parts = ", ".join(f"{stage} {duration(seconds)}" for stage, seconds in made.seconds.items())
        rows.append(("time here", f"about {duration(sum(made.seconds.values()))} on {made.device}: {parts}"))
        needed = f"about {decimal(made.results_bytes)}, and {decimal(made.tiles_bytes)} of tiles"
        rows += [("disk", f"{needed} until they are predicted"), ("estimate", made.how)]
    rows += [("warning", text) for text in report.warnings]
    return [report.path, *(f"  {name:10} {text}" for name, text in rows)]


def _mpp(x: float, y: float) -> str:
    return f"{x:.6g} x {y:.6g} um/px"
