from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.helpers import blob_slide

from .slurm_cluster import Job, SlurmCluster, slurm_cluster, why_not
from .workflow import checkout, read_table, snakemake, snapshot

SLIDES = ("a", "b", "c")
STAGES = ("tile", "infer", "stitch", "vectorize", "report")
# Shorter waits than a real cluster's are the only difference from what docs/clusters.md says.
WAITS = ("--slurm-init-seconds-before-status-checks", "2", "--latency-wait", "5")
STORE = "probabilities.zarr"


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[SlurmCluster]:
    if reason := why_not():
        pytest.skip(reason)
    with slurm_cluster(tmp_path / "slurm") as cluster:
        yield cluster
    assert processes_of(tmp_path) == []


def working_folder(path: Path) -> Path:
    folder = checkout(path)
    for number, name in enumerate(SLIDES):
        blob_slide(folder / "data" / f"{name}.tif", 500 + 50 * number)
    return folder


def start(folder: Path, cluster: SlurmCluster, *command: str) -> subprocess.Popen[str]:
    """A run in the cluster, with a folder of its own for temporary files; its output goes to run.log."""
    scripts, temporary = Path(sys.executable).parent, folder / "tmp"
    temporary.mkdir(parents=True)
    path = f"{scripts}{os.pathsep}{cluster.environment['PATH']}"
    environment = {**cluster.environment, "PATH": path, "TMPDIR": str(temporary)}
    with open(folder / "run.log", "w") as log:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, text=True)


def cancel_once_it_computes(folder: Path, cluster: SlurmCluster, run: subprocess.Popen[str]) -> Job:
    """scancel the first GPU job that has begun to work."""
    while run.poll() is None:
        begun = [path.parent.name for path in (folder / "results" / "logs").glob("*/infer.log")]
        for job in cluster.jobs() if begun else ():
            if job.rule == "infer" and job.slide in begun and job.state == "RUNNING":
                cluster.command("scancel", job.number)
                return job
        time.sleep(0.2)
    raise AssertionError((folder / "run.log").read_text())


def results(folder: Path) -> dict[str, object]:
    """Every file of the results byte by byte, but for how long things took."""
    slides = folder / "results" / "slides"
    found: dict[str, object] = {n: data for n, data in snapshot(slides).items() if "/run/" not in n}
    for name in SLIDES:
        summary = json.loads((slides / name / "summary.json").read_text())
        assert summary.pop("seconds").keys() == {"tile", "infer", "stitch", "vectorize"}
        found[f"{name}/summary.json"] = summary
    rows = read_table(folder / "results" / "cohort.tsv")
    return {**found, "cohort.tsv": [{key: value for key, value in row.items() if key != "seconds"} for row in rows]}


def processes_of(folder: Path) -> list[str]:
    """Processes that work in a folder or were started with it among their words."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd", "pid"]):
        words = " ".join(process.info["cmdline"] or ())
        if process.info["pid"] != os.getpid() and str(folder) in f"{words} {process.info['cwd']}":
            found.append(words)
    return found


@pytest.mark.slow
@pytest.mark.cluster
def test_a_run_on_slurm_gives_what_a_local_run_gives(tmp_path: Path, tiny_model: Path, slurm: SlurmCluster) -> None:
    options = ("--config", "slides=data/*.tif", f"model={tiny_model}", "infer={batch: 4}")
    folder = working_folder(tmp_path / "cluster")
    run = start(folder, slurm, "snakemake", "--profile", "workflow/profiles/slurm", *WAITS, *options)
    try:
        cancelled = cancel_once_it_computes(folder, slurm, run)
        assert run.wait(500) == 0, (folder / "run.log").read_text()
    finally:
        run.terminate()
        run.wait(60)
    jobs = slurm.jobs()

    # Only inference asked for a GPU, one each; memory and time are those of the profile.
    assert {(job.rule, job.gpus, job.memory_mb, job.minutes) for job in jobs if job.state == "COMPLETED"} >= {
        (stage, int(stage == "infer"), 12000 if stage == "infer" else 4000, 60 if stage == "infer" else 30)
        for stage in STAGES
    }
    assert {job.rule for job in jobs if job.gpus} == {"infer"}

    # Every job ran once, but for the one that was cancelled: that was submitted again, with twice the memory and time.
    assert [job.number for job in jobs if job.state != "COMPLETED"] == [cancelled.number]
    counts = Counter((job.rule, job.slide) for job in jobs if job.rule != "cohort")
    assert counts == {(s, n): 1 + ((s, n) == ("infer", cancelled.slide)) for s in STAGES for n in SLIDES}
    (again,) = [
        job for job in jobs if job.rule == "infer" and job.slide == cancelled.slide and job.state == "COMPLETED"
    ]
    assert (again.memory_mb, again.minutes) == (2 * cancelled.memory_mb, 2 * cancelled.minutes)

    # Nothing is left: no job, no process, no temporary file, no tile store.
    assert slurm.command("squeue", "--noheader") == ""
    assert processes_of(folder) == []
    assert [p for p in (folder / "tmp").rglob("*") if p.is_file()] == []
    # (The Snakemake of the job that was cancelled may not have come to remove its empty folder.)
    assert [p for p in (folder / ".snakemake").glob("tmp.*/**/*") if p.is_file()] == []
    assert list((folder / "results").rglob("tiles.zarr")) == []

    shared = shared_inference(tmp_path / "elsewhere", folder / "data" / "a.tif", tiny_model, slurm)

    local = working_folder(tmp_path / "local")
    # With as many threads as the jobs had: the same bytes are promised for one machine and number of threads.
    cores = min(4, os.cpu_count() or 1)
    assert (done := snakemake(local, *options, cores=cores)).returncode == 0, done.stderr
    expected, found = results(local), results(folder)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []

    # Two jobs that shared a slide made what one job makes.
    expected, found = (snapshot(path / "slides" / "a" / STORE) for path in (local / "results", shared))
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == ["run/zarr.json"]


def shared_inference(folder: Path, slide: Path, model: Path, cluster: SlurmCluster) -> Path:
    """Inference of a slide by two jobs, from outside of any checkout, with the profile by its name; the results."""
    before = cluster.jobs()
    command = ("sampath-wsi", "run", "--profile", "slurm", "--slides", str(slide), "--model", str(model), "--out", "r")
    settings = ("--config", "infer.parts=2", "--config", "infer.batch=4")
    run = start(folder, cluster, *command, *settings, "--", *WAITS, f"slides/a/{STORE}/zarr.json")
    try:
        assert run.wait(300) == 0, (folder / "run.log").read_text()
    finally:
        run.terminate()
        run.wait(60)
    jobs = [job for job in cluster.jobs() if job not in before]
    # Each part has a GPU and the memory of inference; what joins them asks for no more than other jobs do.
    asked = sorted((job.rule, job.gpus, job.memory_mb, job.minutes) for job in jobs)
    part = ("infer_part", 1, 12000, 60)
    assert asked == [("infer_join", 0, 4000, 30), part, part, ("tile", 0, 4000, 30)]
    assert {job.state for job in jobs} == {"COMPLETED"}
    assert processes_of(folder) == []
    return folder / "r"
