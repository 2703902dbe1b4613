"""Options of a stage: names, defaults, limits and help, once.

A stage's options are a pydantic model. The keys of the configuration and their schema, the flags of the commands and
the keywords of Python come from it.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from types import UnionType
from typing import Annotated, Literal, Self, TypeVar, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator
from pydantic_core import ErrorDetails

from sampath_wsi.errors import ConfigError

MACHINE: dict[str, JsonValue] = {"machine": True}
"""Marks an option that says where and how fast something is computed, and changes no result."""

NAME = r"^[^{}\x00-\x1f\x7f]+$"
"""Names that become part of commands: no braces, which Snakemake takes for its own, and no control characters."""

T = TypeVar("T")


def _are_unique(values: tuple[T, ...]) -> tuple[T, ...]:
    if len(set(values)) < len(values):
        raise ValueError("one of them is named twice")
    return values


Several = Annotated[
    tuple[T, ...], Field(min_length=1, json_schema_extra={"uniqueItems": True}), AfterValidator(_are_unique)
]
"""One or more different values."""
Device = Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:[0-9]+)?)$", json_schema_extra=MACHINE)]


class Options(BaseModel):
    """Base of all options: frozen, nothing unknown, no NaN and no infinity.

    :meth:`of` makes them with messages for people; the constructor raises what pydantic does.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        regex_engine="python-re",  # the other one knows no surrogates, which names of files may hold
    )

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, given: object) -> object:
        """Read text as Snakemake passes it: inside ``--config key='{...}'`` every value is text, ``null`` too."""
        if not isinstance(given, Mapping):
            return given
        read = dict(given)
        for name, field in cls.model_fields.items():
            value = read.get(name)
            allowed = _types(field.annotation)
            if value == "null" and type(None) in allowed:
                read[name] = None
            elif value is None and name in read and type(None) not in allowed:
                del read[name]  # an empty key of a YAML file: its default
            elif isinstance(value, str) and allowed == {int} and value.isdecimal():
                read[name] = int(value)  # of a choice of numbers
            elif isinstance(value, bool) and {int, float} & allowed:
                raise ValueError(f"{name} is {str(value).lower()}, which is no number")
        return read

    @classmethod
    def of(cls, given: Self | Mapping[str, object] | None, where: str) -> Self:
        """Return options from options, from a mapping, or the defaults.

        Raises
        ------
        ConfigError
            If the mapping has an unknown key or a value that cannot be used.
        """
        if isinstance(given, cls):
            return given
        try:
            return cls.model_validate({} if given is None else given)
        except ValidationError as error:
            raise explained(error, where, cls) from None

    def flags(self, *, machine: bool = False, without: Collection[str] = ()) -> str:
        """Return the options that differ from their defaults as flags of a command, quoted for a shell.

        Parameters
        ----------
        machine
            Those that change no result (:data:`MACHINE`), or all others.
        without
            Options that are no flags.
        """
        given = {
            name: value
            for name, value in self.model_dump(mode="json").items()
            if is_machine(type(self), name) == machine
            and name not in without
            and value != type(self).model_fields[name].default
        }
        return as_flags(given)


def _types(annotation: object) -> set[object]:
    """Return the types that an annotation allows."""
    if get_origin(annotation) is Annotated:
        return _types(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return {type(choice) for choice in get_args(annotation)}
    if get_origin(annotation) in (Union, UnionType):
        return {kind for part in get_args(annotation) for kind in _types(part)}
    return {annotation}


def is_machine(model: type[BaseModel], name: str) -> bool:
    """Whether an option changes no result."""
    extra = model.model_fields[name].json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("machine"))


def as_flags(options: Mapping[str, object]) -> str:
    """Return flags of a command, quoted for a shell: True and False become --x and --no-x, a list repeats its flag.

    None and empty text leave a flag out.
    """
    words: list[str] = []
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, list | tuple):
            words += [word for entry in value for word in (flag, str(entry))]
        elif isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        elif value not in (None, ""):
            words += [flag, str(value)]
    return shlex.join(words)


def explained(error: ValidationError, where: str, model: type[BaseModel]) -> ConfigError:
    """Return the first problem as an error for people: its place, the problem, and the allowed values."""
    first = error.errors(include_url=False)[0]
    path = [str(part) for part in first["loc"]]
    owner, field = _look_up(model, path)
    group = ", ".join(filter(None, (where, ".".join(path[:-1]))))
    if first["type"] == "extra_forbidden":
        return ConfigError(f"{group}: {_unknown(path[-1], list(owner.model_fields))}")
    if first["type"] == "missing":
        return ConfigError(f"{group}: '{path[-1]}' is missing or empty", f"Expected: {field}." if field else "")
    place = ", ".join(filter(None, (where, ".".join(path))))
    return ConfigError(f"{place}: {_problem(first)}", f"Expected: {field}" if field else "")


def _look_up(model: type[BaseModel], path: list[str]) -> tuple[type[BaseModel], str]:
    """Return the model that a path of keys leads into, and the description of its key."""
    description = ""
    for name in path:
        if name.isdigit():  # the place in a list
            continue
        if (field := model.model_fields.get(name)) is None:
            break
        description = field.description or ""
        kinds = (field.annotation, *get_args(field.annotation))
        model = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), model)
    return model, " ".join(description.split())


def _unknown(key: str, known: list[str]) -> str:
    near = get_close_matches(key, known, n=1)
    meant = f"; is '{near[0]}' meant?" if near else ""
    return f"there is no key '{key}'{meant} (known: {', '.join(known)})"


def _problem(error: ErrorDetails) -> str:
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "model_type":
        return f"{error['input']!r} is no group of keys"
    if error["type"] == "value_error":
        return message[0].lower() + message[1:]
    what = "" if error["type"] == "string_pattern_mismatch" else f": {message[0].lower()}{message[1:]}"
    return f"{error['input']!r} cannot be used{what}"
