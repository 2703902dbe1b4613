"""The command that joins what several jobs computed of one slide."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from sampath_wsi.cli.run import log, stage_run

Record = Annotated[Path | None, typer.Option("--record", help="Keep how the stage went in this JSON file.")]


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(join)


def join(
    out: Annotated[Path, typer.Argument(help="The probability store, as given to `infer --out`.")],
    parts: Annotated[int, typer.Option(min=1, help="How many jobs shared the slide: 4 for --part 1/4 to 4/4.")],
    record: Record = None,
) -> None:
    """Join the shards of stage 2: the result is that of a single job, byte for byte.

    Example: sampath-wsi join a/probabilities.zarr --parts 4
    """
    with stage_run("infer", f"{out}, {parts} parts", record) as run:
        from sampath_wsi.stages.infer.join import join as join_store

        facts = join_store(out, parts)
        run.facts.update(tiles=facts.get("tiles"), computed=facts.get("computed"), parts=parts)
        run.facts["device_busy"] = facts.get("device_busy")
        run.facts.update(_together(record))
        log.info("infer: %s tiles of %d parts", facts.get("tiles"), parts)
    forget_parts(record)


def forget_parts(record: Path | None) -> None:
    """Remove the records of a slide's shards (``infer-2-of-4.json`` beside ``infer.json``): the slide is finished."""
    for path in _records_of_shards(record):
        path.unlink()


def _records_of_shards(record: Path | None) -> list[Path]:
    return [] if record is None else sorted(record.parent.glob(f"{record.stem}-*-of-*.json"))


def _together(record: Path | None) -> dict[str, Any]:
    """What the records of the shards say: all devices, and the sum of the jobs' times, which is what it cost."""
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in _records_of_shards(record)]
    if not runs:
        return {}
    facts = {key: ", ".join(sorted({str(run[key]) for run in runs if key in run})) for key in ("device", "precision")}
    return {**facts, "seconds": round(sum(run.get("seconds", 0) for run in runs), 3)}
