"""The configuration says the same in the schema, in config/README.md and in config/config.yaml."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from sampath_wsi.errors import ConfigError
from sampath_wsi.options import load_config
from tests.config_reference import FILES
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
    assert [key for key in OPTIONS if "default" not in KEYS[key]] == [("slides",), ("training", "prepare")]
    assert schema("config")["required"] == ["slides"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_what_comes_from_the_options_is_written_out(path: Path) -> None:
    assert path.read_text() == FILES[path](), "run python -m tests.config_reference"


def test_the_file_says_the_defaults() -> None:
    """So that a run without the file (`sampath-wsi run`, a module) is the same as one with it."""
    assert load_config(CONFIG) == load_config({"slides": CONFIG["slides"]})


def test_old_keys_count_and_are_answered(caplog: pytest.LogCaptureFixture) -> None:
    old = {"slides": "x", "infer": {"shards": 3, "batch": 2}, "dask": "tcp://a:1", "images": {"tiff": True}}
    found = load_config(old)
    assert (found.infer.parts, found.infer.batch) == (3, 2)
    assert (found.stitch.dask, found.images.classes) == ("tcp://a:1", True)
    assert "config: the key 'infer.shards' is called 'infer.parts' now" in caplog.text
    assert old["infer"] == {"shards": 3, "batch": 2}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tile": {"overlap": True}}, r"overlap is true, which is no number"),
        ({"tile": {"min_tissue": float("nan")}}, r"config, tile\.min_tissue: nan cannot be used"),
        ({"tile": {"mintissue": 1}}, r"config, tile: there is no key 'mintissue'; is 'min_tissue' meant\?"),
        ({"output": "a{b"}, r"config, output: 'a\{b' cannot be used\. Expected: the folder of all results"),
        ({"vectorize": {"max_vertices": 50}}, r"max_vertices: 50 cannot be used: give 0 for no limit, or at least 100"),
        ({"experiments": {"seeds": [1, 1]}}, r"config, experiments\.seeds: one of them is named twice"),
        ({"experiments": {"bcss": {"rows": ["vanilla"]}}}, r"experiments\.bcss\.rows\.0: 'vanilla' cannot be used"),
        ({"infer": {"device": "tpu"}}, r"config, infer\.device: 'tpu' cannot be used\. Expected: auto, cpu"),
    ],
)
def test_a_mistake_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config({"slides": "x", **changes})


def test_options_of_rules_are_functions() -> None:
    """Elsewhere Snakemake takes braces in their values for wildcards."""
    for path in (ROOT / "workflow" / "rules").glob("*.smk"):
        assert not re.search(r"^ +\w+=(as_flags\(|[A-Z_]+_FLAGS,)", path.read_text(), re.MULTILINE), path.name


def test_every_reported_file_has_a_caption() -> None:
    for path in (ROOT / "workflow" / "rules").glob("*.smk"):
        text = path.read_text()
        captions = re.findall(r'caption="([^"]+)"', text)
        assert len(captions) == len(re.findall(r"\breport\(", text)), path.name
        assert all((path.parent / caption).read_text().strip() for caption in captions)
