"""Writes what comes from the options models: the schemas, and config/config.yaml. Run it after a change of an option.

``python -m tests.config_reference``
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from sampath_wsi.options import Config
from sampath_wsi.options.base import Options
from sampath_wsi.runs.sheet import SheetRow

ROOT = Path(__file__).resolve().parents[1]
SCHEMAS = ROOT / "workflow" / "schemas"
HEADER = "# Written by `python -m tests.config_reference` from sampath_wsi/options."
CONFIG_HEADER = f"""{HEADER}
# What stands here are the defaults, and can be overridden: --config model=path/to/bundle. More: config/README.md.
"""


def schema(model: type[Options], title: str) -> dict[str, Any]:
    """The JSON schema of a model, without references."""
    found = model.model_json_schema()
    definitions = found.pop("$defs", {})
    whole: dict[str, Any] = inlined(found, definitions)
    whole.pop("title", None)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title, **whole}


def inlined(entry: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(entry, list):
        return [inlined(each, definitions) for each in entry]
    if not isinstance(entry, dict):
        return entry
    if "$ref" in entry:
        below = definitions[entry["$ref"].rpartition("/")[2]]
        own = {key: value for key, value in entry.items() if key not in ("$ref", "default")}
        return inlined({**below, **own}, definitions)
    return {
        key: inlined(value, definitions)
        for key, value in entry.items()
        if key != "machine" and not (key == "title" and isinstance(value, str))
    }


def config_schema() -> str:
    return HEADER + "\n" + dumped(schema(Config, "Configuration of sampath-wsi"))


def slides_schema() -> str:
    found = schema(SheetRow, "Row of the sample sheet of sampath-wsi")
    del found["properties"]["extra"]
    found["additionalProperties"] = {"type": "string"}
    return HEADER + "\n" + dumped(found)


def dumped(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=110)


def config_yaml() -> str:
    """The configuration with every key at its default, explained."""
    return CONFIG_HEADER + "\n".join(lines(Config(slides="config/slides.tsv"), ""))


def lines(options: BaseModel, indent: str) -> list[str]:
    found: list[str] = []
    for name, field in type(options).model_fields.items():
        value = getattr(options, name)
        said = " ".join((field.description or "").split())
        comment = f"{indent}# "
        found += [] if indent else [""]
        found += textwrap.wrap(said, 100, initial_indent=comment, subsequent_indent=comment)
        if isinstance(value, BaseModel):
            found += [f"{indent}{name}:", *lines(value, f"{indent}  ")]
        else:
            plain = options.model_dump(mode="json")[name]
            if isinstance(plain, float) and plain.is_integer():
                plain = int(plain)
            text = yaml.safe_dump(plain, default_flow_style=True, width=1000).removesuffix("\n...\n").strip()
            found.append(f"{indent}{name}: {text}")
    return found


FILES = {
    SCHEMAS / "config.schema.yaml": config_schema,
    SCHEMAS / "slides.schema.yaml": slides_schema,
    ROOT / "config" / "config.yaml": lambda: config_yaml() + "\n",
}

if __name__ == "__main__":
    for path, write in FILES.items():
        path.write_text(write(), encoding="utf-8")
