"""The configuration says the same in the schema, in config/README.md and in config/config.yaml."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import yaml

from sampath_wsi.runs.config import load_config
from tests.conftest import ROOT

SCHEMAS = ROOT / "workflow" / "schemas"
README = (ROOT / "config" / "README.md").read_text()
CONFIG = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
# Explained once for all three.
DATA_SETS = ("bcss", "crag", "glas")


def schema(name: str) -> dict[str, Any]:
    return yaml.safe_load((SCHEMAS / f"{name}.schema.yaml").read_text())


def keys(entry: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Every key of a schema at every depth, with its entry."""
    for name, below in entry.get("properties", {}).items():
        yield (*path, name), below
        yield from keys(below, (*path, name))


KEYS = dict(keys(schema("config")))
OPTIONS = [key for key, entry in KEYS.items() if "properties" not in entry]


def explained() -> Iterator[str]:
    """Names in the first column of the README's tables of keys and columns."""
    header = ""
    for before, line in pairwise(["", *README.splitlines()]):
        header = line if line.startswith("|") and not before.startswith("|") else header
        if line.startswith("|") and header.startswith(("| key ", "| column ")):
            yield from re.findall(r"`([^`]+)`", line.split("|")[1])


def in_readme(key: tuple[str, ...]) -> str:
    """How the README names a key."""
    if key[:1] == ("experiments",) and len(key) == 3 and key[1] in DATA_SETS:
        return f".{key[2]}"
    return ".".join(key)


@pytest.mark.parametrize("name", ["config", "slides"])
def test_every_key_has_a_description(name: str) -> None:
    found = list(keys(schema(name)))
    assert len(found) >= 6
    assert [key for key, entry in found if len(entry.get("description", "").split()) < 3] == []


def test_every_key_is_explained_in_the_readme() -> None:
    named = set(explained())
    assert [key for key in OPTIONS if in_readme(key) not in named] == []
    known = {in_readme(key) for key in KEYS} | set(schema("slides")["properties"])
    assert sorted(named - known) == []


def test_every_key_has_a_default_but_the_slides() -> None:
    assert [key for key in OPTIONS if "default" not in KEYS[key]] == [("slides",)]
    assert schema("config")["required"] == ["slides"]


def test_the_file_says_the_defaults() -> None:
    """So that a run without the file (`sampath-wsi run`, a module) is the same as one with it."""
    assert load_config(CONFIG) == load_config({"slides": CONFIG["slides"]})


def test_sections_that_users_change_are_in_the_file() -> None:
    written = {".".join(key) for key, _ in keys({"properties": as_schema(CONFIG)["properties"]})}
    stages = {".".join(key) for key in OPTIONS if key[0] != "experiments"}
    assert sorted(stages - written) == []


def as_schema(value: Any) -> dict[str, Any]:
    return {"properties": {key: as_schema(below) for key, below in value.items()}} if isinstance(value, dict) else {}


def test_options_of_rules_are_functions() -> None:
    """Elsewhere Snakemake takes braces in their values for wildcards."""
    for path in (ROOT / "workflow" / "rules").glob("*.smk"):
        assert not re.search(r"^ +\w+=(arguments\(|[A-Z_]+_OPTIONS,)", path.read_text(), re.MULTILINE), path.name


def test_every_reported_file_has_a_caption() -> None:
    for path in (ROOT / "workflow" / "rules").glob("*.smk"):
        text = path.read_text()
        captions = re.findall(r'caption="([^"]+)"', text)
        assert len(captions) == len(re.findall(r"\breport\(", text)), path.name
        assert all((path.parent / caption).read_text().strip() for caption in captions)
