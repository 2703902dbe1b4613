"""The folder of a training run: whose it is, and where the run goes on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from sampath_wsi.errors import ConfigError
from sampath_wsi.files import write_json
from sampath_wsi.training.data.prepared import PreparedData
from sampath_wsi.training.recipe import Recipe

RUN_NAME = "run.json"
LAST_CHECKPOINT = "checkpoints/last.ckpt"


def claim_folder(
    out: Path, recipe: Recipe, data: PreparedData, checkpoint: Path, *, resume: bool, write: bool = True
) -> Path | None:
    """Take a folder for a run, say in ``run.json`` which, and find the checkpoint to go on from.

    What stopped before its first checkpoint is begun anew.

    Parameters
    ----------
    checkpoint
        Where the run writes its last checkpoint.
    resume
        Whether to go on with a run that is there.
    write
        False in all processes of a run but the first.

    Raises
    ------
    ConfigError
        If the folder holds a run and ``resume`` is not set, or that of another recipe or other data.
    """
    run, described = _description(recipe, data), out / RUN_NAME
    if checkpoint.exists():
        if not resume:
            raise ConfigError(f"{out} already holds a run", "Go on with it (--resume), or name another folder.")
        if difference := _difference(described, run):
            raise ConfigError(
                f"the run in {out} has another recipe or other data ({difference})", "Name another folder."
            )
    if write:
        write_json(described, run)
        for leftover in checkpoint.parent.glob(".partial.*"):
            leftover.unlink()
    return checkpoint if checkpoint.exists() else None


def _description(recipe: Recipe, data: PreparedData) -> dict[str, Any]:
    splits = "".join(f"{sample.sample},{sample.split}\n" for sample in data.samples)
    samples = {"samples": len(data.samples), "splits_sha256": hashlib.sha256(splits.encode()).hexdigest()}
    return {"recipe": recipe.model_dump(mode="json"), "data": data.info.model_dump(mode="json") | samples}


def _difference(described: Path, run: dict[str, Any]) -> str:
    """The first key in which a run's description differs from what is wanted; empty if none does."""
    if not described.exists():
        return f"{described.name} is missing"
    found = json.loads(described.read_text(encoding="utf-8"))
    return next(
        (
            f"{part}.{key}"
            for part in run
            for key in run[part] | found.get(part, {})
            if run[part].get(key) != found.get(part, {}).get(key)
        ),
        "",
    )
