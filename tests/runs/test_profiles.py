"""What the profiles of clusters say; tests/e2e runs the workflow with them."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT

FOLDER = ROOT / "workflow" / "profiles"
CLUSTERS = sorted(path.name for path in FOLDER.iterdir() if path.is_dir() and path.name != "default")
# What a site changes or a scheduler has words of its own for.
OF_A_SITE = {"project", "queue", "image", "claim", "mount", "slurm_account", "slurm_partition", "gpu"}
RUNNING, DONE = "running", "success"


def profile(name: str) -> dict[str, dict[str, object]]:
    return yaml.safe_load((FOLDER / name / "config.yaml").read_text())


def estimates(name: str) -> dict[str, dict[str, object]]:
    """Memory and time of each rule, and what all others get."""
    read = profile(name)
    rules = {"others": read["default-resources"], **read["set-resources"]}
    return {rule: {k: v for k, v in entry.items() if k not in OF_A_SITE} for rule, entry in rules.items()}  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", CLUSTERS)
def test_profiles_of_clusters_estimate_alike(name: str) -> None:
    assert estimates(name) == estimates("slurm")
    assert "resources" not in profile(name), "a limit would hold for the whole cluster"
    for entry in estimates(name).values():
        assert all("attempt" in str(value) for value in entry.values())


def test_every_rule_with_a_gpu_has_memory_and_time_of_its_own() -> None:
    text = "\n".join(path.read_text() for path in (ROOT / "workflow" / "rules").glob("*.smk"))
    rules = re.findall(r"^rule (\w+):\n((?:(?!^rule ).*\n)*)", text, re.MULTILINE)
    with_gpu = {name for name, body in rules if "gpu=" in body}
    assert with_gpu == set(profile("slurm")["set-resources"])


@pytest.mark.parametrize("name", CLUSTERS)
def test_parts_of_a_slide_ask_for_what_the_whole_asks_for(name: str) -> None:
    asked = profile(name)["set-resources"]
    assert asked["infer_part"] == asked["infer"]
    assert "infer_join" not in asked


def test_rules_leave_memory_and_time_to_the_profiles() -> None:
    for path in (ROOT / "workflow" / "rules").glob("*.smk"):
        assert not re.search(r"\b(mem|mem_mb|runtime|disk_mb|slurm_\w+)=", path.read_text()), path.name


@pytest.mark.parametrize("name", CLUSTERS)
def test_each_cluster_is_explained_with_its_three_things(name: str) -> None:
    text = (FOLDER / name / "config.yaml").read_text()
    assert re.findall(r"# SITE (\d)", text) == ["1", "2", "3"]
    assert f"snakemake --profile workflow/profiles/{name}" in (ROOT / "docs" / "clusters.md").read_text()


@pytest.mark.parametrize(
    ("name", "command", "answer", "code", "expected"),
    [
        ("lsf", "bjobs", "PEND", "", RUNNING),
        ("lsf", "bjobs", "DONE", "0", DONE),
        ("lsf", "bjobs", "EXIT", "1", "failed"),
        ("lsf", "bjobs", "Job <7> is not found", "0", DONE),
        ("lsf", "bjobs", "LSF is down. Please wait ...", "", RUNNING),
        ("pbs", "qstat", "    job_state = Q", "", RUNNING),
        ("pbs", "qstat", "    job_state = F\n    Exit_status = 0", "0", DONE),
        ("pbs", "qstat", "    job_state = C\n    exit_status = 1", "1", "failed"),
        ("pbs", "qstat", "qstat: 7.server Job has finished, use -x or -H", "0", DONE),
        ("pbs", "qstat", "qstat: Unknown Job Id 7.server", "1", "failed"),
        ("pbs", "qstat", "Connection refused", "", RUNNING),
        ("sge", "qstat", "job_number: 7", "", RUNNING),
        ("sge", "qstat", "Following jobs do not exist:\n7", "0", DONE),
        ("sge", "qstat", "job_number: 7\nerror reason 1: no such folder", "", "failed"),
        ("sge", "qstat", "error: unable to contact qmaster", "", RUNNING),
        ("kubernetes", "kubectl", "Complete", "", DONE),
        ("kubernetes", "kubectl", "Failed", "", "failed"),
        ("kubernetes", "kubectl", "Error from server (NotFound): jobs not found", "", "failed"),
        ("kubernetes", "kubectl", "Unable to connect to the server", "", RUNNING),
    ],
)
def test_what_a_scheduler_says_of_a_job(
    tmp_path: Path, name: str, command: str, answer: str, code: str, expected: str
) -> None:
    (tmp_path / "bin").mkdir()
    for program, text in ((command, f"cat <<'END'\n{answer}\nEND\n"), ("qdel", "exit 0\n")):
        (tmp_path / "bin" / program).write_text(f"#!/bin/sh\n{text}")
        (tmp_path / "bin" / program).chmod(0o755)
    exit_file = tmp_path / ".snakemake" / "cluster" / "7.exit"
    exit_file.parent.mkdir(parents=True)
    if code:
        exit_file.write_text(f"{code}\n")
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    status = [str(FOLDER / name / "status.sh"), "7"]
    done = subprocess.run(status, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == f"{expected}\n"
    assert not exit_file.exists()
