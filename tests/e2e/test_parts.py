"""Several GPUs share a slide: the workflow with `infer.parts`, on a machine that pretends to have two GPUs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from sampath_wsi.model.ready import ready_model
from sampath_wsi.options import InferOptions
from sampath_wsi.stages.infer.stage import infer
from tests.helpers import blob_slide

from .workflow import checkout, run, snapshot

# Loaded by every Python that the workflow starts. A job that infers sees two GPUs, which compute on the CPU; each notes
# the one that it holds, and computes once both are held. A GPU that is held already cannot be noted.
PRETENDED = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
if Path(sys.orig_argv[1]).name == "sampath-wsi" and sys.orig_argv[2] == "infer":
    import torch
    from sampath_wsi.stages.infer.predictor import Predictor
    held = Path(__file__).parent / "held"
    torch.cuda.device_count = lambda: 2
    torch.cuda.get_device_properties = lambda index: SimpleNamespace(uuid=f"test-{held.parent.parent.name}-{index}")
    torch.cuda.get_device_name = lambda device: "pretended"
    begin = Predictor.__init__

    def on_the_cpu(self, bundle, device, *how):
        held.mkdir(exist_ok=True)
        (held / str(device.index)).touch(exist_ok=False)
        until = time.monotonic() + 600
        while len(list(held.iterdir())) < 2:
            assert time.monotonic() < until, "the other job holds no GPU meanwhile"
            time.sleep(0.05)
        begin(self, bundle, torch.device("cpu"), *how)

    Predictor.__init__ = on_the_cpu
"""


@pytest.fixture
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the pretence; which GPUs were held, its folder `held` says."""
    folder = tmp_path / "pretended"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(PRETENDED)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    for name in ("CUDA_VISIBLE_DEVICES", "SLURM_STEP_GPUS", "SLURM_JOB_GPUS"):
        monkeypatch.delenv(name, raising=False)
    yield folder
    for lock in Path("/tmp", f"sampath_wsi-{os.getuid()}").glob(f"test-{tmp_path.name}-*"):
        lock.unlink()


@pytest.mark.slow
def test_two_jobs_on_two_gpus_give_what_one_job_gives(tmp_path: Path, tiny_model: Path, two_gpus: Path) -> None:
    folder = checkout(tmp_path / "work")
    blob_slide(folder / "data" / "a.tif")
    slide = folder / "results" / "slides" / "a"
    config = ("slides=data/*.tif", f"model={tiny_model}", "infer={parts: 2, batch: 4, precision: fp32}")
    target = (slide / "probabilities.zarr" / "zarr.json").relative_to(folder)
    done = run(folder, "--cores", 8, "--resources", "gpu=2", "--notemp", target, "--config", *config)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (two_gpus / "held").iterdir()) == ["0", "1"]

    record = json.loads((slide / "run" / "infer.json").read_text())
    assert (record["status"], record["parts"]) == ("ok", 2)
    assert record["tiles"] == record["computed"] > 4
    assert record["device"] == "cuda:0 (pretended), cuda:1 (pretended)"
    assert sorted(path.name for path in (slide / "run").iterdir()) == ["infer.json", "tile.json"]
    assert sorted(path.name for path in slide.iterdir()) == ["probabilities.zarr", "run", "tiles.zarr"]

    threads = torch.get_num_threads()
    try:  # as the workflow's jobs, with their threads
        with ready_model(tiny_model, InferOptions(device="cpu", precision="fp32", batch=4), threads=4) as model:
            infer(slide / "tiles.zarr", tmp_path / "one.zarr", model)
    finally:
        torch.set_num_threads(threads)
    expected, found = snapshot(tmp_path / "one.zarr"), snapshot(slide / "probabilities.zarr")
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == ["run/zarr.json"]
