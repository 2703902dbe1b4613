"""The commands about models: list, show, convert."""

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
