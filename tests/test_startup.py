"""What a stage loads before it works: it is paid for every slide."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sampath_wsi.model import Architecture, PathologyEncoderSpec, SamEncoderSpec, build_model
from sampath_wsi.model.shapes import shapes_only
from tests.helpers import blob_slide

RUN = """
import sys
from sampath_wsi.cli import main
try:
    main()
finally:
    print("loaded:", *sorted({name.split(".")[0] for name in sys.modules}))
    print("loaded:", *[name for name in sys.modules if name == "torch._dynamo"])
"""
NEVER = {"distributed", "jsonschema", "sympy", "torch._dynamo", "pandas", "snakemake", "pytest"}
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


@pytest.mark.parametrize("pathology", [None, PathologyEncoderSpec(name="vit_tiny_patch16_224", kwargs={"depth": 1})])
def test_models_made_for_their_shapes_have_the_shapes_of_real_ones(pathology: PathologyEncoderSpec | None) -> None:
    sam = SamEncoderSpec(embed_dim=32, depth=2, heads=2, global_blocks=(1,), window=4)
    architecture = Architecture(image_size=128, sam=sam, pathology=pathology, decoder_dim=32)
    real = build_model(architecture, 3).state_dict()
    with shapes_only():
        state = build_model(architecture, 3).state_dict()
    assert {key: tensor.shape for key, tensor in state.items()} == {key: real[key].shape for key in real}
    assert all(tensor.is_meta for tensor in state.values())


def test_shapes_follow_from_arithmetic_that_changes_them() -> None:
    with shapes_only():
        assert (torch.empty(3, 1) * torch.empty(4)).shape == (3, 4)
        assert (2.0 * torch.randn(3)).shape == (3,)
        assert torch.empty(2, 3).fill_(1).shape == (2, 3)
    assert torch.equal(2.0 * torch.ones(3), torch.full((3,), 2.0))


def test_the_limit_that_the_workflow_takes_away_is_the_one_that_snakemake_sets() -> None:
    """`schedule_when_jobs_end` in common.smk reaches into Snakemake: an update must not silently undo it."""
    from snakemake.cli import get_argument_parser
    from snakemake.scheduling.job_scheduler import JobRateLimiter, JobScheduler

    limiter = JobRateLimiter(get_argument_parser().parse_args(["--cores", "1"]).max_jobs_per_timespan)
    assert (limiter.max_jobs, limiter.timespan) == (100, 1)
    assert "job_rate_limiter" in JobScheduler.__init__.__code__.co_names
    assert "job_rate_limiter" in JobScheduler.schedule.__code__.co_names
