"""Changes to a recipe from the command line, such as ``loss.focal=0.5``: pure functions on its YAML content."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sampath_wsi.errors import ConfigError
from sampath_wsi.model.templates import template_card
from sampath_wsi.runs.config import parse_setting


def with_overrides(content: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The content of a recipe with some keys set, and its architecture spelled out if it is a template's name.

    Parameters
    ----------
    content
        Of the YAML file; it is not changed.
    overrides
        ``key=value`` in the order in which they take effect; parts of a key are joined with dots, and the value is YAML
        (``null`` takes a part away). Whether a key exists is for the recipe to say.

    Raises
    ------
    ConfigError
        If an override is not of this form, or a part of its key is no mapping.
    ModelError
        If there is no template of the architecture's name.
    """
    content = _spelled_out(content)
    for override in overrides:
        parts, value = parse_setting(override, example="loss.focal=0.5")
        content = _spelled_out(_set(content, parts, value, override))
    return content


def _set(content: dict[str, Any], parts: list[str], value: Any, override: str) -> dict[str, Any]:
    if len(parts) == 1:
        return {**content, parts[0]: value}
    below = content.get(parts[0])
    if below is None:
        below = {}
    if not isinstance(below, dict):
        raise ConfigError(f"the override '{override}': {parts[0]} is no mapping", "Correct the key.")
    return {**content, parts[0]: _set(below, parts[1:], value, override)}


def _spelled_out(content: dict[str, Any]) -> dict[str, Any]:
    architecture = content.get("architecture")
    if not isinstance(architecture, str):
        return content
    return {**content, "architecture": template_card(architecture).architecture.model_dump(mode="json")}
