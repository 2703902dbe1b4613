"""Options that several commands have, in the same words, and how the shell completes them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def complete_model(incomplete: str) -> list[str]:
    """Models that begin like this; where none does, the shell completes a path."""
    from sampath_wsi.model.zoo import known_models

    return [name for name in known_models() if name.startswith(incomplete)]


def complete_device(incomplete: str) -> list[str]:
    """Devices by name."""
    return [name for name in ("auto", "cpu", "cuda", "cuda:0", "mps") if name.startswith(incomplete)]


def complete_precision(incomplete: str) -> list[str]:
    """Precisions."""
    return [name for name in ("auto", "fp32", "bf16", "fp16") if name.startswith(incomplete)]


Record = Annotated[Path | None, typer.Option("--record", help="Keep how the stage went in this JSON file.")]
Model = Annotated[
    str,
    typer.Option("--model", help="Name of a model in the zoo, or path of a bundle.", autocompletion=complete_model),
]
ModelArgument = Annotated[
    str,
    typer.Argument(help="Name of a model in the zoo, or path of a bundle.", autocompletion=complete_model),
]
SlideId = Annotated[
    str | None, typer.Option("--slide-id", help="Identifier of the slide; default: from its file name.")
]
Mpp = Annotated[
    str | None, typer.Option("--mpp", help="Micrometres a level-0 pixel, e.g. 0.25 or 0.25x0.26; default: metadata.")
]
Threads = Annotated[int, typer.Option("--threads", min=1, help="Threads.")]
ModelThreads = Annotated[
    int | None, typer.Option("--threads", min=1, help="CPU threads of the model; default: all cores.")
]
Device = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.", autocompletion=complete_device)
]
Precision = Annotated[
    str,
    typer.Option("--precision", help="Of the encoders: auto, fp32, bf16 or fp16.", autocompletion=complete_precision),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for other programs.")]
