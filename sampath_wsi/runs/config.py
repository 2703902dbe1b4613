"""The configuration of the workflow: checked, and completed with the schema's defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from sampath_wsi.errors import ConfigError
from sampath_wsi.runs.validation import check, complete, load_schema, schema_path


def load_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Check a configuration and fill in what it leaves out.

    Raises
    ------
    ConfigError
        Naming the key, what is wrong with it, and what may stand there.
    """
    path = schema_path("config")
    given = {key: value for key, value in config.items() if value is not None}
    completed = complete(given, load_schema(path))
    check(completed, path, "config")
    return completed


def read_config(path: Path) -> dict[str, Any]:
    """The keys of a configuration file (YAML or JSON), not checked.

    Raises
    ------
    ConfigError
        If it cannot be read, or holds no keys.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such configuration", "Check the path.") from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}", "Mend its YAML.") from error
    if not isinstance(content, dict | None):
        raise ConfigError(f"{path}: it holds no keys", "Write it as config/config.yaml is written.")
    return content or {}


def with_settings(config: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """A configuration with ``key=value`` set; a section that is set keeps its other keys.

    Raises
    ------
    ConfigError
        If a setting is not of this form, or a part of its key is no section.
    """
    changed = dict(config)
    for setting in settings:
        parts, value = parse_setting(setting, example="vectorize.tolerance=0")
        changed = _with(changed, parts, value, setting)
    return changed


def parse_setting(setting: str, example: str) -> tuple[list[str], Any]:
    """The parts of the key, which dots join, and the value of ``key=value``; the value is YAML.

    Raises
    ------
    ConfigError
        If it is not of this form; the message shows the example.
    """
    key, equals, text = setting.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(f"'{setting}' is not of the form key=value", f"Write e.g. {example}.")
    try:
        return parts, yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"the value of '{setting}' is not YAML", "Quote it.") from error


def _with(config: dict[str, Any], parts: list[str], value: Any, setting: str) -> dict[str, Any]:
    below = config.get(parts[0])
    if len(parts) > 1:
        if not isinstance(below, dict | None):
            raise ConfigError(f"'{setting}': {parts[0]} is no section of the configuration", "Correct the key.")
        value = _with(below or {}, parts[1:], value, setting)
    elif isinstance(below, dict) and isinstance(value, dict):
        value = {**below, **value}
    return {**config, parts[0]: value}
