"""The configuration of the workflow: checked, and completed with the schema's defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sampath_wsi.validation import check, complete, load_schema, schema_path


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
