"""The workflow as others deploy it: from its repository, as snakedeploy writes it down, and as a module of another."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.helpers import blob_slide

from .workflow import ROOT, run

# What `snakedeploy deploy-workflow https://github.com/lab/sampath-wsi . --tag v1` makes.
DEPLOYED = """
configfile: "config/config.yaml"

module sampath_wsi:
    snakefile:
        github("lab/sampath-wsi", path="workflow/Snakefile", tag="v1")
    config:
        config

use rule * from sampath_wsi
"""
# A workflow that goes on with the results.
EXTENDED = f"""
module sampath_wsi:
    snakefile:
        {str(ROOT / "workflow" / "Snakefile")!r}
    config:
        dict(slides="data/*.tif")

use rule * from sampath_wsi as segment_*

rule count:
    input:
        rules.segment_everything.input,
    output:
        "count.txt",
    default_target: True
    shell:
        "ls {{input:q}} > {{output:q}}"
"""


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The repository of the workflow, where https://github.com/lab/sampath-wsi leads."""
    repository = tmp_path / "published" / "lab" / "sampath-wsi"
    repository.mkdir(parents=True)
    for name in ("Snakefile", "workflow", "config", "envs"):
        subprocess.run(["cp", "-r", ROOT / name, repository], check=True)
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "init.defaultBranch=main"]
    for words in (["init", "-q"], ["add", "--all"], ["commit", "-q", "-m", "all"], ["tag", "v1"]):
        subprocess.run([*git, *words], cwd=repository, check=True, capture_output=True)
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.{tmp_path}/published/.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "https://github.com/")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def planned(folder: Path) -> dict[str, int]:
    """How many jobs of each rule a dry run in a folder would do."""
    done = run(folder, "-n", "--quiet", "rules", "--resources", "gpu=1", "--cores", 1)
    assert done.returncode == 0, done.stderr
    lines = (done.stdout + done.stderr).partition("total")[0].splitlines()
    words = [line.split() for line in lines]
    return {pair[0]: int(pair[1]) for pair in words if len(pair) == 2 and pair[1].isdigit()}


def test_deployed_from_its_repository(tmp_path: Path, published: None) -> None:
    folder = tmp_path / "deployed"
    (folder / "workflow").mkdir(parents=True)
    (folder / "workflow" / "Snakefile").write_text(DEPLOYED)
    (folder / "config").symlink_to(ROOT / "config")
    steps = ("demo_slide", "tile", "infer", "stitch", "vectorize", "report", "evaluate", "cohort", "everything")
    assert planned(folder) == dict.fromkeys(steps, 1)


def test_as_a_module_of_a_workflow_that_goes_on(tmp_path: Path) -> None:
    (tmp_path / "Snakefile").write_text(EXTENDED)
    blob_slide(tmp_path / "data" / "a.tif")
    blob_slide(tmp_path / "data" / "b.tif")
    jobs = planned(tmp_path)
    assert (jobs["segment_infer"], jobs["segment_cohort"], jobs["count"]) == (2, 1, 1)
    assert "demo_slide" not in " ".join(jobs)


def test_what_the_catalog_reads() -> None:
    for name in ("workflow/Snakefile", "config/README.md", "config/config.yaml", "LICENSE"):
        assert (ROOT / name).is_file()
        assert not (ROOT / name).is_symlink()  # what is read from the repository would be the link's text
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert set(usage) == {"mandatory-flags", "software-stack-deployment", "report"}
    assert usage["software-stack-deployment"]["conda"] is True
    assert {"snakemake", "workflow"} <= set((ROOT / "README.md").read_text().lower().split())


@pytest.mark.parametrize("source", ["checkout", "package"])
def test_environments_that_snakemake_makes_get_the_program(tmp_path: Path, source: str) -> None:
    """The script that Snakemake runs in a new environment, in one without pip; `python -m pip` is a stand-in."""
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (tmp_path / "pip.py").write_text("import sys; print(*sys.argv[1:])")
    folder = ROOT if source == "checkout" else ROOT / "sampath_wsi"
    variables = {
        "PATH": f"{environment}/bin{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(tmp_path),
        "SAMPATH_WSI_WORKFLOW": str(ROOT),
        "SAMPATH_WSI_SOURCE": str(folder),
    }
    script = ["bash", str(ROOT / "envs" / "gpu.post-deploy.sh")]
    done = subprocess.run(script, cwd=tmp_path, env=variables, capture_output=True, text=True, check=True)
    program = environment / "bin" / "sampath-wsi"
    if source == "checkout":
        assert done.stdout.split() == ["install", "--no-deps", str(ROOT)]
        assert not program.exists()
    else:
        assert program.read_text().splitlines()[0] == f"#!{environment}/bin/python"
        assert len(list(environment.glob("lib/python3*/site-packages/sampath_wsi/model/zoo/demo/card.json"))) == 1
