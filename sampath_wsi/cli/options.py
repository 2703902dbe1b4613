"""Flags of commands: those of a stage come from its options model; others several commands have, in the same words."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin

import annotated_types
import typer
from pydantic.fields import FieldInfo

from sampath_wsi.options import Options

Command = TypeVar("Command", bound=Callable[..., None])
Flags = dict[str, object]
"""Options by name, as they were given."""


def flags_of(model: type[Options], *, without: Collection[str] = ()) -> Callable[[Command], Command]:
    """Give a command the options of a stage as flags: its parameter ``options`` takes them together, not yet checked.

    Names, defaults, limits and help are the model's; ``without`` leaves some out. Two dashes and the name with dashes
    make the flag, so that ``Options.flags`` and the command agree.
    """
    fields = {name: field for name, field in model.model_fields.items() if name not in without}

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command, eval_str=True)
        flags = [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=_flag(name, field)
            )
            for name, field in fields.items()
        ]

        @wraps(command)
        def run(*arguments: object, **given: object) -> None:
            return command(*arguments, options={name: given.pop(name) for name in fields}, **given)

        own = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in signature.parameters.values()]
        run.__signature__ = signature.replace(parameters=[each for each in own if each.name != "options"] + flags)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in [*own, *flags]}
        return run  # type: ignore[return-value]

    return decorate


def _flag(name: str, field: FieldInfo) -> object:
    """Return the annotation from which Typer makes a flag."""
    limits = [*field.metadata, *(m for part in get_args(field.annotation) for m in getattr(part, "__metadata__", ()))]
    found = [*limits, *(m for limit in limits for m in getattr(limit, "metadata", ()))]
    least: Any = next((m.ge for m in found if isinstance(m, annotated_types.Ge)), None)
    most: Any = next((m.le for m in found if isinstance(m, annotated_types.Le)), None)
    complete = _COMPLETIONS.get(name)
    said = " ".join((field.description or "").split())
    option = typer.Option(help=f"{said[:1].upper()}{said[1:]}.", min=least, max=most, autocompletion=complete)
    return Annotated[_plain(field.annotation), option]


def _plain(annotation: Any) -> Any:
    """Return a type without the limits that Typer does not know."""
    parts = get_args(annotation)
    if hasattr(annotation, "__metadata__"):
        return _plain(parts[0])
    if get_origin(annotation) is tuple:
        return list[parts[0]]  # type: ignore[valid-type]
    if type(None) in parts:
        (kind,) = (part for part in parts if part is not type(None))
        return _plain(kind) | None
    return annotation


def complete_model(incomplete: str) -> list[str]:
    """Return the names of models that begin like this; if there is none, the shell completes a path."""
    from sampath_wsi.model.zoo import known_models

    return [name for name in known_models() if name.startswith(incomplete)]


def complete_device(incomplete: str) -> list[str]:
    """Return the devices that begin like this."""
    return [name for name in ("auto", "cpu", "cuda", "cuda:0", "mps") if name.startswith(incomplete)]


def complete_precision(incomplete: str) -> list[str]:
    """Return the precisions that begin like this."""
    return [name for name in ("auto", "fp32", "bf16", "fp16") if name.startswith(incomplete)]


_COMPLETIONS = {"device": complete_device, "precision": complete_precision}
"""Completions of options in the shell, by name."""


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
