"""The commands about models: list, show, convert, fetch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

group = typer.Typer(
    help="Models: which there are, what a card says, and how the authors' checkpoints are converted.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.add_typer(group, name="model")


@group.command("list")
def list_models() -> None:
    """List the models that can be named."""
    from sampath_wsi.errors import ModelError
    from sampath_wsi.model.zoo import known_models, resolve_model

    for name in known_models():
        try:
            print(f"{name:32} {resolve_model(name)}")
        except ModelError as error:
            print(f"{name:32} not here: {error}")


@group.command()
def show(model: Annotated[str, typer.Argument(help="Name of a model in the zoo, or path of a bundle.")]) -> None:
    """Print a model's card.

    Example: sampath-wsi model show demo
    """
    from sampath_wsi.model.card import CARD_NAME, ModelCard
    from sampath_wsi.model.zoo import resolve_model

    print(ModelCard.read(resolve_model(model) / CARD_NAME).model_dump_json(indent=2))


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
    from sampath_wsi.model.convert import convert_checkpoint

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
    from sampath_wsi.model.registry import find_encoder

    source = find_encoder(name)
    with written_aside(out) as aside:
        try:
            os.link(source, aside)
        except OSError:  # another file system, or one without links
            shutil.copyfile(source, aside)
    print(f"{out}: {source}")
