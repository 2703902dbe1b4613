from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.helpers import blob_slide

from . import stand_ins
from .workflow import ROOT, checkout, run

PROFILES = sorted(path.name for path in (ROOT / "workflow" / "profiles").iterdir() if path.is_dir())
GENERIC = [name for name in PROFILES if name not in ("default", "slurm")]

pytestmark = [pytest.mark.slow, pytest.mark.cluster]


def resources_of(output: str) -> dict[tuple[str, str], dict[str, str]]:
    """The resources of each job in a dry run: (rule, slide) -> name -> value."""
    jobs = {}
    for block in re.split(r"\n(?=rule |localrule )", output):
        rule = re.match(r"rule (\w+):", block)
        slide = re.search(r"wildcards: .*slide=(\S+)", block)
        words = re.search(r"resources: (.*)", block)
        if rule and words:
            jobs[rule[1], slide[1] if slide else ""] = dict(word.split("=") for word in words[1].split(", "))
    return jobs


@pytest.mark.parametrize("profile", PROFILES)
def test_what_jobs_ask_for(tmp_path: Path, tiny_model: Path, profile: str) -> None:
    pytest.importorskip(
        "snakemake_executor_plugin_slurm" if profile == "slurm" else "snakemake_executor_plugin_cluster_generic"
    )
    folder = checkout(tmp_path / "work")
    (folder / "data").mkdir()
    for name, size in (("small", 1000), ("big", 4_000_000_000)):
        with open(folder / "data" / f"{name}.svs", "wb") as file:
            file.truncate(size)
    named = ("--cores", "8") if profile == "default" else ("--profile", f"workflow/profiles/{profile}")
    training = "training={data: synthetic, devices: 2}"
    done = run(folder, *named, "-n", "all", "train", "--config", "slides=data/*", f"model={tiny_model}", training)
    assert done.returncode == 0, done.stderr
    jobs = resources_of(done.stdout + done.stderr)
    if profile == "default":
        # One GPU unless told otherwise.
        assert [jobs[job]["gpu"] for job in (("infer", "big"), ("training_run", ""))] == ["1", "1"]
        return
    wanted = {
        ("tile", "small"): (4000, 30, 0),
        ("tile", "big"): (4500, 110, 0),
        ("infer", "small"): (12000, 60, 1),
        ("infer", "big"): (12500, 860, 1),
        ("vectorize", "big"): (4500, 110, 0),
        ("training_run", ""): (32000, 1440, 2),
    }
    found = {job: jobs[job] for job in wanted}
    assert {job: (int(f["mem_mb"]), int(f["runtime"]), int(f.get("gpu", 0))) for job, f in found.items()} == wanted


@pytest.fixture
def scheduler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the stand-ins' jobs; while it is used, the commands are on the path."""
    commands, jobs = tmp_path / "bin", tmp_path / "jobs"
    commands.mkdir()
    jobs.mkdir()
    script = commands / "stand_ins.py"
    script.write_text(f"#!{sys.executable}\n{Path(stand_ins.__file__).read_text()}")
    script.chmod(0o755)
    for name in stand_ins.COMMANDS:
        (commands / name).symlink_to(script)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("STAND_INS", str(jobs))
    return jobs


# What the GPU job alone asks for, and what it asks for when it is submitted for the second time.
ASKED = {
    "lsf": ("-gpu num=1", "-q gpu -n 4 -W 120 -M 24000MB"),
    "pbs": (":ngpus=1", "-l walltime=7200 -l select=1:ncpus=4:mem=24000mb:ngpus=1"),
    "sge": ("-l gpu=1", "-q gpu.q -j y -o .snakemake/cluster/ -pe smp 4 -l h_rt=7200,mem_free=24000M -l gpu=1"),
    "kubernetes": ('nvidia.com/gpu: "1"', 'limits: {memory: "24000M", nvidia.com/gpu: "1"}'),
}


@pytest.mark.parametrize("profile", GENERIC)
def test_a_run_through_the_generic_plugin(
    tmp_path: Path, tiny_model: Path, scheduler: Path, profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("snakemake_executor_plugin_cluster_generic")
    gpu, again = ASKED[profile]
    monkeypatch.setenv("KILL_FIRST", gpu)
    folder = checkout(tmp_path / "work")
    blob_slide(folder / "data" / "a.tif")
    store = "results/slides/a/probabilities.zarr/zarr.json"
    waits = ("--seconds-between-status-checks", "1", "--latency-wait", "5")
    options = ("--config", "slides=data/*.tif", f"model={tiny_model}")
    done = run(folder, "--profile", f"workflow/profiles/{profile}", *waits, store, *options)
    assert done.returncode == 0, done.stderr
    assert (folder / store).exists()
    paths = sorted(scheduler.glob("*.json"), key=lambda path: int(path.stem))
    tile, killed, infer = (json.loads(path.read_text())["description"] for path in paths)
    assert [gpu in text for text in (tile, killed, infer)] == [False, True, True]
    assert again in infer
    assert again not in killed
    if profile == "kubernetes":
        job = yaml.safe_load(infer)["spec"]
        assert job["activeDeadlineSeconds"] == 7200
        assert job["template"]["spec"]["containers"][0]["workingDir"] == str(folder)
    assert list((folder / ".snakemake").glob("cluster/*.exit")) == []
    assert list((folder / ".snakemake").glob("tmp.*")) == []


def test_a_run_from_anywhere_with_a_profile_that_was_copied(tmp_path: Path, tiny_model: Path, scheduler: Path) -> None:
    pytest.importorskip("snakemake_executor_plugin_cluster_generic")
    blob_slide(tmp_path / "data" / "a.tif")
    program = str(Path(sys.executable).parent / "sampath-wsi")
    waits = ("--seconds-between-status-checks", "1", "--latency-wait", "5")
    for words in (
        ("profile", "lsf", "--out", "mine"),
        ("run", "--slides", "data/*", "--model", tiny_model, "--out", "r", "--profile", "./mine", "--", *waits),
    ):
        done = subprocess.run([program, *map(str, words)], cwd=tmp_path, capture_output=True, text=True, timeout=3600)
        assert done.returncode == 0, done.stderr
    assert "1 of 1 slides are done" in done.stdout
    assert len(list(scheduler.glob("*.json"))) == 6
    assert {path.name for path in tmp_path.iterdir()} == {"data", "mine", "r", "bin", "jobs"}
