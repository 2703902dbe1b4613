"""Modules that a stage loads before it works: their time is paid for every slide."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.helpers import blob_slide

RUN = """
import sys
from sampath_wsi.cli import main
try:
    main()
finally:
    print("loaded:", *sorted({name.split(".")[0] for name in sys.modules}))
"""
NEVER = {"distributed", "jsonschema", "pandas", "snakemake", "pytest"}
UNWANTED = {
    "tile": {"torch", "dask", "matplotlib", "timm"},
    "infer": {"scipy", "dask", "shapely", "matplotlib"},
    "stitch": {"torch", "scipy", "shapely", "matplotlib"},
    "vectorize": {"torch", "dask", "matplotlib"},
    "report": {"torch", "scipy", "dask", "timm"},
}


def run(*words: object) -> set[str]:
    """The packages that a command has loaded when it ends."""
    command = [sys.executable, "-c", RUN, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stderr
    return {word for line in done.stdout.splitlines() if line.startswith("loaded:") for word in line.split()[1:]}


def test_no_stage_loads_what_another_needs(tmp_path: Path, tiny_model: Path) -> None:
    slide = blob_slide(tmp_path / "a.tif", size=300)
    tiles, probabilities, segmentation = (
        tmp_path / name for name in ("tiles.zarr", "probabilities.zarr", "segmentation.ome.zarr")
    )
    commands: dict[str, tuple[object, ...]] = {
        "tile": (slide, "--out", tiles, "--model", tiny_model),
        "infer": (tiles, "--out", probabilities, "--model", tiny_model),
        "stitch": (probabilities, "--out", segmentation),
        "vectorize": (segmentation, "--out", tmp_path / "a.geojson.gz"),
        "report": (slide, segmentation, "--overlay", tmp_path / "a.png", "--summary", tmp_path / "a.json"),
    }
    for stage, words in commands.items():
        found = run(stage, *words, *(() if stage == "report" else ("--record", tmp_path / "run" / f"{stage}.json")))
        assert "sampath_wsi" in found
        assert found & (UNWANTED[stage] | NEVER) == set(), stage


def test_snakemakes_limit_of_jobs_is_the_one_taken_away() -> None:
    """`schedule_when_jobs_end` in common.smk reaches into Snakemake: an update must not silently undo it."""
    from snakemake.cli import get_argument_parser
    from snakemake.scheduling.job_scheduler import JobRateLimiter, JobScheduler

    limiter = JobRateLimiter(get_argument_parser().parse_args(["--cores", "1"]).max_jobs_per_timespan)
    assert (limiter.max_jobs, limiter.timespan) == (100, 1)
    assert "job_rate_limiter" in JobScheduler.__init__.__code__.co_names
    assert "job_rate_limiter" in JobScheduler.schedule.__code__.co_names
