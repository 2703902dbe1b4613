"""Consistency of the repository: its files, documentation and requirements."""

from __future__ import annotations

import re
import subprocess
import tomllib

import pytest
import yaml

from .conftest import ROOT


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def pinned() -> dict[str, str]:
    lines = (ROOT / "envs" / "constraints.txt").read_text().splitlines()
    return {normalised(line.split("==")[0]): line.split("==")[1] for line in lines if "==" in line}


def required(*extras: str) -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extra = project["optional-dependencies"]
    entries = [*project["dependencies"], *(entry for name in extras or extra for entry in extra[name])]
    names = [normalised(re.split(r"[<>=\[]", entry)[0]) for entry in entries]
    return [name for name in names if name != "sampath-wsi"]


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_conda_environments_have_the_pinned_versions(name: str, pinned: dict[str, str]) -> None:
    environment = yaml.safe_load((ROOT / "envs" / f"{name}.yaml").read_text())
    packages = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    found = dict(entry.split("==") for entry in packages if "==" in entry)
    assert {normalised(key): value for key, value in found.items()} == {key: pinned[key] for key in required("train")}


def test_every_requirement_is_pinned(pinned: dict[str, str]) -> None:
    assert [name for name in required() if name not in pinned] == []


def test_every_key_of_the_configuration_is_explained() -> None:
    schema = yaml.safe_load((ROOT / "workflow" / "schemas" / "config.schema.yaml").read_text())
    text = (ROOT / "config" / "README.md").read_text()
    keys = []
    for name, entry in schema["properties"].items():
        keys += [f"{name}.{key}" for key in entry["properties"]] if "properties" in entry else [name]
    assert [key for key in keys if f"`{key}`" not in text] == []


def test_every_column_of_the_sample_sheet_is_explained() -> None:
    from sampath_wsi.runs.sheet import COLUMNS

    schema = yaml.safe_load((ROOT / "workflow" / "schemas" / "slides.schema.yaml").read_text())
    text = (ROOT / "config" / "README.md").read_text()
    assert tuple(schema["properties"]) == COLUMNS
    assert [column for column in COLUMNS if f"`{column}`" not in text] == []


def test_files_stay_short() -> None:
    listed = subprocess.run(["git", "ls-files", "*.py", "*.smk"], cwd=ROOT, capture_output=True, text=True, check=True)
    lengths = {name: len((ROOT / name).read_text().splitlines()) for name in listed.stdout.split()}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


def test_names_of_tests_stay_short() -> None:
    texts = [path.read_text() for path in (ROOT / "tests").rglob("*.py")]
    assert [name for text in texts for name in re.findall(r"def (test_\w+)", text) if len(name) > 60] == []


def test_links_of_the_documentation_lead_somewhere() -> None:
    pages = [ROOT / "README.md", ROOT / "config" / "README.md", *(ROOT / "docs").glob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


STAGES = ("tile", "infer", "stitch", "vectorize", "images")


@pytest.mark.parametrize("stage", STAGES)
def test_no_stage_imports_another(stage: str) -> None:
    others = "|".join(name for name in STAGES if name != stage)
    folder = ROOT / "sampath_wsi" / "stages"
    for file in (*folder.glob(f"{stage}.py"), *(folder / stage).rglob("*.py")):
        assert not re.findall(rf"(?:from|import) sampath_wsi\.stages\.(?:{others})\b", file.read_text()), file


def test_every_package_has_its_place_in_the_architecture() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    named = {path for line in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE) for path in re.findall(r"`(.+?)`", line)}
    packages = {path.parent.name for path in (ROOT / "sampath_wsi").glob("*/__init__.py")}
    assert {name for name in packages if not named & {f"sampath_wsi/{name}/", f"{name}/"}} == set()
    assert {
        name for name in named if not (ROOT / name).exists() and not (ROOT / "sampath_wsi" / name).exists()
    } == set()


def test_what_decides_is_compared_by_snakemake() -> None:
    """It compares no parameter that is a function of these, and wants the same text as a resource in all of a group."""
    for path in sorted((ROOT / "workflow" / "rules").glob("*.smk")):
        text = path.read_text()
        assert re.findall(r"(?:options|version|made_of|rows|model)=lambda \w+, (?:input|output|threads).*", text) in (
            [],
            ["model=lambda w, input: Path(input.card).parent,"],
        )
        asked = re.findall(r"^    resources:\n((?:        .*\n)+)", text, re.MULTILINE)
        assert {line.split("=")[0].strip() for block in asked for line in block.splitlines()} <= {"gpu"}
