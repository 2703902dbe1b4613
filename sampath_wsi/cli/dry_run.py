"""Print what a command would write, and from where it would go on (`--dry-run`). Nothing is written."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.filesize import decimal

if TYPE_CHECKING:
    from sampath_wsi.options import StitchOptions
    from sampath_wsi.stages.infer.parts import Part
    from sampath_wsi.stages.infer.stage import ReadyModel
    from sampath_wsi.stages.tile import TilePlan
    from sampath_wsi.stores.provenance import Provenance
    from sampath_wsi.training.run import Run

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be written, and from where it goes on.")]


def say_tiles(out: Path, plan: TilePlan) -> None:
    """Print the plan of stage 1."""
    from sampath_wsi.stages.tile import finished_tiles

    grid = plan.provenance.grid
    count, size = len(grid.tiles), grid.tile_model_px
    what = (
        f"{count} of {grid.rows} x {grid.columns} tiles, {size} px at {grid.mpp_model:g} um/px, "
        f"overlap {grid.overlap_model_px} px"
    )
    _say(out, plan.provenance, what, count * size * size * 3, f"{finished_tiles(out, grid)} of {count} tiles")
    for warning in plan.result.warnings:
        print(f"{out}: warning: {warning}")


def say_probabilities(out: Path, tiles: Path, model: ReadyModel, part: Part | None) -> None:
    """Print the plan of stage 2."""
    from sampath_wsi.stages.infer.parts import held_batches
    from sampath_wsi.stages.infer.probabilities import how_computed
    from sampath_wsi.stages.infer.stage import plan_probabilities
    from sampath_wsi.stores.store import open_store

    made_by = open_store(tiles, "tiles")[1]
    planned = plan_probabilities(out, made_by, model)
    how = how_computed(planned)
    count, classes, size = len(made_by.grid.tiles), len(model.spec.classes), made_by.grid.tile_map_px
    done = sum(min(how.batch, count - first) for first in held_batches(out, planned))
    shared = "" if part is None else f", part {part} of them"
    what = (
        f"{count} tiles of {classes} classes{shared}, by the model {model.spec.name} on {model.device} in "
        f"{how.precision}, {how.batch} a batch"
    )
    _say(out, planned, what, count * classes * size * size, f"{done} of {count} tiles")


def say_segmentation(out: Path, probabilities: Path, options: StitchOptions) -> None:
    """Print the plan of stage 3, which begins anew when it was cut off."""
    from sampath_wsi.stages.stitch.stage import plan_segmentation
    from sampath_wsi.stores.store import open_store

    planned = plan_segmentation(open_store(probabilities, "probabilities")[1], options)
    bytes_a_value = 1 if options.dtype == "uint8" else 4
    width, height = planned.grid.map_size_map_px
    classes = len(planned.classes)
    what = f"a map of {width} x {height} px at {planned.grid.mpp_map:g} um/px, {classes} classes"
    # Every level of the pyramid has a quarter of the pixels of the one before.
    _say(out, planned, what, width * height * (classes * bytes_a_value + 1) * 4 // 3, None)


def say_objects(out: Path, segmentation: Path) -> None:
    """Print the plan of stage 4, which always draws everything."""
    from sampath_wsi.stores.store import open_store

    planned = open_store(segmentation, "segmentation")[1]
    width, height = planned.grid.map_size_map_px
    names = ", ".join(entry.name for entry in planned.classes)
    print(f"{out}: objects of a map of {width} x {height} px; classes {names}")
    print(f"{out}: {_made_anew(out)}")


def say_pictures(files: Iterable[Path], what: str) -> None:
    """Print the plan of pictures and summaries, which are always made anew."""
    for file in files:
        print(f"{file}: {what}; {_made_anew(file)}")


def say_training(run: Run) -> None:
    """Print the plan of a training."""
    from sampath_wsi.machine.device import first_device
    from sampath_wsi.training.weights import describe_weights

    recipe, device, classes = run.recipe, first_device(run.options.device).type, ", ".join(run.classes)
    print(
        f"{run.out}: recipe {recipe.name}, {recipe.epochs} epochs of {run.batches} batches of {recipe.batch_size} "
        f"tiles of {recipe.tile_px} px, {run.val_tiles} tiles to validate on, on {device}; classes {classes}"
    )
    begins = f"begins with {'; '.join(describe_weights(recipe)) or 'fresh weights'}"
    print(f"{run.out}: {begins if run.checkpoint is None else f'goes on after {run.checkpoint}'}")


def _made_anew(file: Path) -> str:
    return "is there and would be replaced" if file.exists() else "begins"


def _say(out: Path, planned: Provenance, what: str, most_bytes: int, done: str | None) -> None:
    from sampath_wsi.stores.store import is_begun, is_finished

    print(f"{out}: {what}; at most {decimal(most_bytes)}")
    if is_finished(out, planned):
        state = "is finished: nothing to do"
    elif done is not None and is_begun(out, planned):
        state = f"goes on: {done} are done"
    elif out.exists():
        state = "begins; what lies there was made from something else or otherwise, and would be replaced"
    else:
        state = "begins"
    print(f"{out}: {state}")
