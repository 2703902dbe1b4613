from __future__ import annotations

import os
import platform
import resource
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import IO

import numpy as np
import pytest
import torch

from sampath_wsi.errors import ConfigError, ModelError
from sampath_wsi.machine import device as devices
from sampath_wsi.machine.device import choose_precision, lease, leased_device, leased_gpus
from sampath_wsi.model.bundle import load_bundle
from sampath_wsi.stages.infer.predictor import Predictor
from sampath_wsi.training.processes import held_devices

HOLD = """
import sys, time
from pathlib import Path
from sampath_wsi.machine.device import lease
with lease(sys.argv[2:], folder=Path(sys.argv[1])) as (position,):
    print(position, flush=True)
    time.sleep(60)
"""


def start(folder: Path, names: list[str]) -> tuple[subprocess.Popen[str], int]:
    """Hold one of the names in a process of its own, until it is killed; which one, it says."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder), *names], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def test_a_killed_process_frees_its_device(tmp_path: Path) -> None:
    names = ["GPU-a", "GPU-b"]
    (first, first_held), (second, second_held) = start(tmp_path, names), start(tmp_path, names)
    assert (first_held, second_held) == (0, 1)
    first.kill()
    first.communicate()
    with lease(names, folder=tmp_path) as (position,):
        assert position == 0
    second.kill()
    second.communicate()


def test_waits_until_a_device_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    with lease(["GPU-a"], folder=tmp_path):

        def stop_waiting(seconds: float) -> None:
            waits.append(seconds)
            raise InterruptedError

        monkeypatch.setattr(devices.time, "sleep", stop_waiting)
        with pytest.raises(InterruptedError), lease(["GPU-a"], folder=tmp_path):
            pass
    assert waits
    with lease(["GPU-a"], folder=tmp_path) as (position,):
        assert position == 0


PRETENDED = """
import os, sys, time, types
visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0,1,2,3").split(",")
cuda = types.SimpleNamespace(
    device_count=lambda: len(visible),
    get_device_properties=lambda i: types.SimpleNamespace(uuid=f"test-{os.environ['OF']}-{visible[i]}"),
)
sys.modules["torch"] = types.SimpleNamespace(cuda=cuda, device=lambda kind, i: types.SimpleNamespace(index=i))
from sampath_wsi.machine.device import leased_device, leased_gpus
with (leased_device() if sys.argv[1] == "1" else leased_gpus(int(sys.argv[1]))) as held:
    print(*(visible[i] for i in ([held.index] if sys.argv[1] == "1" else held)), flush=True)
    time.sleep(60)
"""


class Jobs:
    """Processes that lease GPUs of a pretended machine of four, as jobs of this program do."""

    def __init__(self, of: str) -> None:
        self.of = of
        self.started: list[subprocess.Popen[str]] = []

    def start(self, count: int = 1, **environment: str) -> subprocess.Popen[str]:
        variables = {k: v for k, v in os.environ.items() if not k.startswith(("CUDA", "SLURM"))}
        process = subprocess.Popen(
            [sys.executable, "-c", PRETENDED, str(count)],
            env={**variables, "OF": self.of, **environment},
            stdout=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def held(self, count: int = 1, **environment: str) -> str:
        """Start a job; which GPUs it got, by their numbers in the machine."""
        return output(self.start(count, **environment)).readline().strip()


def output(process: subprocess.Popen[str]) -> IO[str]:
    assert process.stdout is not None
    return process.stdout


def says_nothing(process: subprocess.Popen[str]) -> bool:
    return select.select([output(process)], [], [], 1)[0] == []


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    jobs = Jobs(tmp_path.name)
    yield jobs
    for process in jobs.started:
        process.kill()
        process.communicate()
    for lock in Path("/tmp", f"sampath_wsi-{os.getuid()}").glob(f"test-{jobs.of}-*"):
        lock.unlink()


def test_jobs_take_different_gpus_whatever_their_tmpdir(jobs: Jobs, tmp_path: Path) -> None:
    assert [jobs.held(), jobs.held(TMPDIR=str(tmp_path)), jobs.held(2)] == ["0", "1", "2 3"]
    fifth = jobs.start()
    assert says_nothing(fifth)
    jobs.started[1].kill()
    assert output(fifth).readline().strip() == "1"


def test_jobs_keep_to_the_gpus_that_were_assigned(jobs: Jobs) -> None:
    assert jobs.held(CUDA_VISIBLE_DEVICES="2,3") == "2"
    # A scheduler that hides the other GPUs gives the rest new numbers.
    assert jobs.held(CUDA_VISIBLE_DEVICES="3", SLURM_JOB_GPUS="0") == "3"
    assert jobs.held(SLURM_JOB_GPUS="1") == "1"
    assert jobs.held(SLURM_JOB_GPUS="0,1", SLURM_STEP_GPUS="0") == "0"


def test_several_gpus_are_held_together_or_not_at_all(jobs: Jobs) -> None:
    assert jobs.held() == "0"
    three, four = jobs.start(3), jobs.start(4)
    assert output(three).readline().strip() == "1 2 3"
    assert says_nothing(four)
    for process in jobs.started[:2]:
        process.kill()
    assert output(four).readline().strip() == "0 1 2 3"


def test_a_training_holds_all_its_gpus(jobs: Jobs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    uuid = f"test-{jobs.of}-"
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: SimpleNamespace(uuid=f"{uuid}{i}"))
    for name in ("CUDA_VISIBLE_DEVICES", "SLURM_STEP_GPUS", "SLURM_JOB_GPUS"):
        monkeypatch.delenv(name, raising=False)
    with held_devices("auto", 2) as held:
        assert [str(device) for device in held] == ["cuda:0", "cuda:1"]
        assert says_nothing(jobs.start(CUDA_VISIBLE_DEVICES="0,1"))
    with pytest.raises(ConfigError, match="3 devices were asked for"), leased_gpus(3):
        pass


def test_devices_that_do_not_exist() -> None:
    for request in ("tpu", "cuda:x", f"cuda:{torch.cuda.device_count()}"):
        with pytest.raises(ConfigError, match=f"device '{request}'"), leased_device(request):
            pass
    with leased_device("cpu") as device:
        assert device == torch.device("cpu")


def test_precisions() -> None:
    assert choose_precision("fp32", torch.device("cpu")) == "fp32"
    assert choose_precision("auto", torch.device("cpu")) in ("fp32", "fp16")
    with pytest.raises(ConfigError, match="precision 'int8' is unknown"):
        choose_precision("int8", torch.device("cpu"))


def test_out_of_memory_halves_the_batch_and_loses_nothing(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Predictor(load_bundle(tiny_model), torch.device("cpu"), "fp32")
    rgb = np.random.default_rng(0).integers(0, 256, (7, 128, 128, 3), np.uint8)
    expected, expected_iou = predictor(rgb)
    forward, sizes = Predictor._forward, []

    def small_memory(self: Predictor, images: torch.Tensor):  # type: ignore[no-untyped-def]
        sizes.append(len(images))
        if len(images) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return forward(self, images)

    monkeypatch.setattr(Predictor, "_forward", small_memory)
    found, iou = predictor(rgb)
    assert sizes == [7, 3, 1, 1, 1, 1, 1, 1, 1]
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert np.allclose(iou, expected_iou, atol=1e-4)


def test_where_fp16_overflows_bf16_computes(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = load_bundle(tiny_model)
    with torch.no_grad():
        # Too much for fp16, the same in every channel: the norm that follows takes it out again.
        mlp = bundle.model.pathology_encoder.model.blocks[-1].mlp  # type: ignore[union-attr]
        mlp.fc1.bias.fill_(1000)
        mlp.fc2.weight.fill_(1)
        mlp.fc2.bias.zero_()
    rgb = np.random.default_rng(2).integers(0, 256, (2, 128, 128, 3), np.uint8)
    expected, _ = Predictor(bundle, torch.device("cpu"), "fp32")(rgb)
    with caplog.at_level("WARNING"):
        found, _ = Predictor(bundle, torch.device("cpu"), "fp16")(rgb)
    assert "fp16 overflows for these 2 tiles" in caplog.text
    assert np.abs(found.astype(int) - expected).mean() < 2


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_values_that_are_not_numbers_are_an_error(tiny_model: Path, precision: str) -> None:
    bundle = load_bundle(tiny_model)
    with torch.no_grad():
        bundle.model.neck[0].weight.fill_(float("nan"))
    with pytest.raises(ModelError, match="gives values that are not finite numbers"):
        Predictor(bundle, torch.device("cpu"), precision)(np.zeros((1, 128, 128, 3), np.uint8))  # type: ignore[arg-type]


FAULTS = """
import resource, sys
import numpy as np
from sampath_wsi.machine.memory import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
np.ones(2**25, np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    np.ones(2**25, np.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_used_again_without_page_faults() -> None:
    def faults(how: str) -> int:
        # A huge page, where the system has some to spare, would be one fault in place of 512.
        environment = {**os.environ, "NUMPY_MADVISE_HUGEPAGE": "0"}
        command = [sys.executable, "-c", FAULTS, how]
        return int(subprocess.run(command, env=environment, check=True, capture_output=True).stdout)

    pages = 10 * 2**25 // resource.getpagesize()
    assert faults("kept") < pages / 100
    assert faults("as it comes") > pages / 100


def test_probabilities_are_a_softmax_over_the_classes_alone(tiny_model: Path) -> None:
    bundle = load_bundle(tiny_model)
    predictor = Predictor(bundle, torch.device("cpu"), "fp32")
    rgb = np.random.default_rng(1).integers(0, 256, (2, 128, 128, 3), np.uint8)
    found, _ = predictor(rgb)
    assert found.shape == (2, 3, 32, 32)
    assert (found.astype(int).sum(1) == 255).all()
    with torch.inference_mode():
        logits, _ = bundle.model(torch.from_numpy(rgb).permute(0, 3, 1, 2).float() / 255)
        expected = torch.softmax(logits[:, 1:], 1).numpy()
    assert np.abs(found / 255 - expected).max() <= 1.01 / 255


def test_the_batch_of_a_larger_device_is_computed_in_pieces(tiny_model: Path) -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (5, 128, 128, 3), np.uint8)
    whole, _ = Predictor(load_bundle(tiny_model), torch.device("cpu"), "fp32")(rgb)
    smaller = Predictor(load_bundle(tiny_model), torch.device("cpu"), "fp32", at_once=2)
    seen: list[int] = []
    smaller.model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    found, _ = smaller(rgb)
    assert seen == [2, 2, 1]
    assert np.abs(found.astype(int) - whole).max() <= 1
