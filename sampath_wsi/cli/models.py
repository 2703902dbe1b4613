"""The commands about models: list, show, convert, fetch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sampath_wsi.cli.help import App
from sampath_wsi.cli.options import Json, ModelArgument
from sampath_wsi.cli.run import stage_run

group = App(
    help="""Models: which there are, what a card says, and how the authors' checkpoints are converted.

    Example: sampath-wsi model list
    """
)


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.add_typer(group, name="model")


@group.command("list")
def list_models(as_json: Json = False) -> None:
    """List the models that can be named.

    Example: sampath-wsi model list
    """
    from sampath_wsi.errors import ModelError
    from sampath_wsi.model.zoo import known_models, resolve_model

    found = {}
    for name in known_models():
        try:
            found[name] = {"path": str(resolve_model(name)), "problem": None}
        except ModelError as error:
            found[name] = {"path": None, "problem": str(error)}
    if as_json:
        print(json.dumps(found, indent=2))
        return
    for name, entry in found.items():
        print(f"{name:26} {entry['path'] or f'not here; `sampath-wsi model show {name}` says how to get it'}")


@group.command()
def show(model: ModelArgument, as_json: Json = False) -> None:
    """Print a model's card: what it segments, at which mpp, and what it may be used for.

    Example: sampath-wsi model show demo
    """
    from sampath_wsi.model.card import CARD_NAME, ModelCard
    from sampath_wsi.model.zoo import resolve_model

    path = resolve_model(model)
    card = ModelCard.read(path / CARD_NAME)
    if as_json:
        print(card.model_dump_json(indent=2))
        return
    encoders = [name for name in ("sam", "pathology") if getattr(card.architecture, name) is not None]
    rows = {
        "model": f"{card.name}: {card.description}",
        "classes": ", ".join(entry.name for entry in card.classes),
        "mpp": f"{card.mpp:g} um/px",
        "tile": f"{card.tile_px} px, overlap {card.overlap_px} px",
        "encoders": ", ".join(encoders),
        "data": card.data,
        "Dice": ", ".join(f"{score:.3g} {name}" for name, score in card.scores.items() if "dice" in name.lower()),
        "licence": card.licence,
        "limitations": card.limitations,
        "path": str(path),
    }
    for name, text in rows.items():
        if text:
            print(f"{name:12} {text}")


@group.command()
def convert(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint (.ckpt) of the SAM-Path authors' training code.")],
    out: Annotated[Path, typer.Argument(help="The folder of the bundle to write.")],
    template: Annotated[
        str, typer.Option(help="What the checkpoint does not say: a paper's model by name, or a card.json.")
    ] = "sampath-bcss",
    trust: Annotated[
        bool, typer.Option("--trust", help="Accept other Python objects in the file; they are left out, not run.")
    ] = False,
) -> None:
    """Convert a checkpoint of the SAM-Path authors' code to a bundle.

    Example: sampath-wsi model convert last.ckpt models/bcss --template sampath-bcss
    """
    from sampath_wsi.model.pretrained import convert_checkpoint

    card = convert_checkpoint(checkpoint, out, template, trust=trust)
    print(f"{out}: model '{card.name}' with the classes {', '.join(entry.name for entry in card.classes)}")


@group.command()
def fetch(
    name: Annotated[str, typer.Argument(help="Name of public encoder weights, such as sam_vit_b or hipt_vit_small.")],
    out: Annotated[Path, typer.Argument(help="The file to write.")],
) -> None:
    """Get the public weights of an encoder: from the cache, or by download with a checksum.

    Example: sampath-wsi model fetch sam_vit_b sam_vit_b.pth
    """
    import os
    import shutil

    from sampath_wsi.files import written_aside
    from sampath_wsi.model.zoo import find_encoder

    with stage_run("fetch", name, None) as run:
        source = find_encoder(name, run.progress)
        with written_aside(out) as aside:
            try:
                os.link(source, aside)
            except OSError:  # another file system, or one without links
                shutil.copyfile(source, aside)
    print(f"{out}: {source}")
