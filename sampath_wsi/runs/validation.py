"""Checks against JSON schemas, with messages for people: where, what is wrong, and what may stand there."""

from __future__ import annotations

import math
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import yaml

from sampath_wsi.errors import ConfigError

if TYPE_CHECKING:
    from jsonschema import TypeChecker
    from jsonschema.exceptions import ValidationError

# jsonschema is imported where something is checked: the stages use only the other functions.


def check(instance: object, schema_path: Path, where: str) -> None:
    """Check a value against a YAML schema.

    Parameters
    ----------
    where
        Names the value in the message ("config/slides.tsv, row 3").

    Raises
    ------
    ConfigError
        Naming the key or column, what is wrong with it, and its description in the schema as the remedy.
    """
    from jsonschema.exceptions import best_match

    try:
        error = best_match(_validator(schema_path).iter_errors(instance))
    except RecursionError:
        raise ConfigError(
            f"{where}: its brackets are nested too deeply", "Write it as the documentation does."
        ) from None
    if error is not None:
        key = ".".join(str(part) for part in error.absolute_path)
        raise ConfigError(f"{where}{f', {key}' if key else ''}: {_problem(error)}", _remedy(error))


def check_finite(**options: float | None) -> None:
    """Check options of a command that must be numbers: ``nan`` passes every comparison with a limit.

    Raises
    ------
    ConfigError
        Naming the first option that is no finite number.
    """
    for name, value in options.items():
        if value is not None and not math.isfinite(value):
            raise ConfigError(f"--{name.replace('_', '-')}: '{value}' is not a number", "Give a finite number.")


def complete(instance: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """A copy of a configuration, at every depth: absent keys have the schema's defaults, and text is a number, a truth
    value or null where the schema wants one (inside ``--config key='{...}'`` Snakemake takes every value for text).
    """
    filled = dict(instance)
    for key, entry in schema.get("properties", {}).items():
        value = filled.get(key)
        if entry.get("type") == "object" and isinstance(value, dict | None):
            filled[key] = complete(value or {}, entry)
        elif key not in filled and "default" in entry:
            filled[key] = entry["default"]
        elif isinstance(value, list):
            filled[key] = [_as_wanted(part, entry.get("items", {})) for part in value]
        elif key in filled:
            filled[key] = _as_wanted(value, entry)
    return filled


def _as_wanted(value: Any, schema: dict[str, Any]) -> Any:
    """A value, read as YAML if it is text and the schema wants no text, or if it says null and may be that."""
    wanted = schema.get("type", "string")
    if not isinstance(value, str) or ("string" in wanted and not (value == "null" and "null" in wanted)):
        return value
    try:
        return yaml.safe_load(value)
    except (yaml.YAMLError, ValueError, RecursionError):
        return value  # text that is no YAML is not what the schema wants either, and the check says so


def schema_path(name: str) -> Path:
    """The file of a schema of the workflow."""
    path = Path(__file__).parents[1] / "_workflow" / "workflow" / "schemas" / f"{name}.schema.yaml"
    if not path.is_file():
        raise ConfigError(f"the workflow's schema '{name}' is missing: {path}", "Install sampath-wsi again.")
    return path


def load_schema(schema_path: Path) -> dict[str, Any]:
    """A schema as a dictionary."""
    schema: dict[str, Any] = yaml.safe_load(schema_path.read_text(encoding="utf-8"))
    return schema


@cache
def _validator(schema_path: Path) -> Any:
    from jsonschema import Draft202012Validator, validators

    # YAML can say .nan and .inf, which pass every limit that they are compared with.
    types = Draft202012Validator.TYPE_CHECKER.redefine("number", _is_finite_number)
    return validators.extend(Draft202012Validator, type_checker=types)(load_schema(schema_path))


def _is_finite_number(checker: TypeChecker, instance: object) -> bool:
    is_number = isinstance(instance, int | float) and not isinstance(instance, bool)
    try:
        return is_number and math.isfinite(cast(float, instance))
    except OverflowError:  # an integer beyond every float
        return False


def _problem(error: ValidationError) -> str:
    if error.validator == "additionalProperties":
        schema: Any = error.schema
        known = list(schema.get("properties", {}))
        unknown = next(key for key in cast(dict[str, Any], error.instance) if key not in known)
        near = get_close_matches(str(unknown), known, n=1)
        meant = f"; is '{near[0]}' meant?" if near else ""
        return f"there is no key '{unknown}'{meant} (known: {', '.join(known)})"
    if error.validator == "required":
        given = cast(dict[str, Any], error.instance)
        missing = next(key for key in cast(list[str], error.validator_value) if key not in given)
        return f"'{missing}' is missing or empty"
    if error.validator == "pattern":  # what is expected says it better than a regular expression
        return f"{error.instance!r} cannot be used"
    return error.message


def _remedy(error: ValidationError) -> str:
    if error.validator == "additionalProperties":
        return ""
    description = error.schema.get("description", "") if isinstance(error.schema, dict) else ""
    return f"Expected: {description}" if description else ""
