from __future__ import annotations

import dataclasses
import errno
import fcntl
import importlib.metadata
import json
import os
import shutil
import sys
from collections import namedtuple
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sampath_wsi.machine import doctor, facts, installation
from sampath_wsi.machine.doctor import Finding, examine, run_check
from sampath_wsi.model import zoo

from .cli.test_cli import run


def statuses(found: Iterable[Finding]) -> list[str]:
    return [each.status for each in found]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(zoo.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_here_nothing_fails(tmp_path: Path, cache: Path) -> None:
    found = list(examine(tmp_path / "results" / "not" / "yet"))
    assert [f.text for f in found if f.status == "fail"] == []
    assert len({f.check for f in found}) == 15
    # Whatever is not well comes with what to do.
    assert all(bool(f.remedy) == (f.status != "ok") for f in found)
    assert list(tmp_path.iterdir()) == []


def test_the_command_tells_and_fails_if_something_does(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = run(capsys, "doctor", "--results", tmp_path, "--json")
    found = json.loads(out)
    assert (code, found["ok"]) == (0, True)
    assert {"check", "status", "text", "remedy"} == set(found["findings"][0])
    monkeypatch.setattr(doctor, "_TOO_LITTLE_BYTES", 1e18)
    code, out, _ = run(capsys, "doctor", "--results", tmp_path)
    assert code == 2
    assert f"fail  results          {tmp_path}: " in out
    assert "-> Free some space, or write to another disk." in out
    assert "3 failed" in out


def test_a_check_that_breaks_off_is_a_finding() -> None:
    def broken() -> list[Finding]:
        raise RuntimeError("two\nlines")

    (finding,) = run_check("x", broken)
    assert (finding.check, finding.status, finding.text) == ("x", "fail", "broke off: RuntimeError: two lines")

    def lacks() -> list[Finding]:
        raise ModuleNotFoundError("No module named 'torch'")

    (finding,) = run_check("x", lacks)
    assert (finding.text, finding.remedy[:25]) == ("No module named 'torch'", "Install sampath-wsi again")


def test_packages_that_are_too_old_or_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["numpy>=2.4", "zarr>=999", "no-such-package>=1", 'never>=1; extra == "test"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: wanted)
    found = list(installation.packages())
    assert statuses(found) == ["fail", "fail"]
    assert found[0].text == f"zarr {importlib.metadata.version('zarr')}, but >=999 is needed"
    assert found[1].text == "no-such-package is missing, but >=1 is needed"


def test_an_openslide_that_reads_wrongly(monkeypatch: pytest.MonkeyPatch) -> None:
    from sampath_wsi.slides import SlideReader

    monkeypatch.setattr(SlideReader, "read", lambda *_, **__: 0)
    assert statuses(installation.openslide()) == ["fail"]


def test_a_driver_and_no_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(installation, "_DRIVER", tmp_path)
    for built_for, said in ((None, "torch is built for the CPU alone"), ("13.0", "torch sees no GPU")):
        monkeypatch.setattr(torch.version, "cuda", built_for)
        (found,) = installation.gpu()
        assert found.status == "warn"
        assert said in found.text


def test_gpus_are_named_with_their_memory_and_who_holds_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from sampath_wsi.machine import device

    properties = SimpleNamespace(name="H100", uuid="u")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (2**36, 2**37))
    monkeypatch.setattr(device, "_names", lambda gpus: [f"gpu{index}" for index in gpus])
    monkeypatch.setattr(device, "_lock_folder", lambda: tmp_path)
    ones = torch.ones
    monkeypatch.setattr(torch, "ones", lambda *size, device: ones(*size))
    with device.lease(["gpu1"], folder=tmp_path):
        found = list(installation.gpu())
    assert [result.text for result in found] == [
        "cuda:0 H100, 64.0 of 128.0 GiB free",
        "cuda:1 H100, 64.0 of 128.0 GiB free, used by a job of sampath-wsi",
    ]
    # Looking takes no lease.
    with device.lease(["gpu0", "gpu1"], 2, tmp_path) as held:
        assert held == [0, 1]


def test_a_damaged_model_is_named(cache: Path, tiny_model: Path) -> None:
    shutil.copytree(tiny_model, cache / "models" / "mine")
    (whole,) = installation.models()
    assert "mine" in whole.text
    weights = cache / "models" / "mine" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    found = list(installation.models())
    assert statuses(found) == ["fail", "ok"]
    assert f"mine: {weights}: truncated or altered" in found[0].text


def test_encoders_in_the_cache_are_checked(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (none,) = installation.encoders()
    assert none.status == "ok"
    weights = dataclasses.replace(zoo.ENCODERS["sam_vit_b"], bytes=3, sha256="0" * 64)
    monkeypatch.setitem(zoo.ENCODERS, "sam_vit_b", weights)
    weights.cached_path.parent.mkdir(parents=True)
    weights.cached_path.write_bytes(b"abc")
    assert statuses(installation.encoders()) == ["fail", "ok"]


def test_snakemake_of_another_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for program, said in ((None, "not in PATH"), ("/usr/games/snakemake", "of another environment")):
        monkeypatch.setattr(shutil, "which", lambda _, program=program: program)
        (found,) = installation.snakemake()
        assert said in found.text
        assert "source" in found.remedy


@pytest.mark.parametrize(
    ("script", "plugin", "status", "said"),
    [
        ("echo 'gpu*  up infinite 1 idle n1'; echo 'cpu up infinite 1 idle n2'", "2.8", "ok", "partitions gpu, cpu"),
        ("echo 'gpu*  up'", None, "warn", "plugin for it is missing"),
        ("echo down >&2; exit 1", "2.8", "warn", "sinfo: down"),
        ("sleep 60", "2.8", "warn", "does not answer"),
    ],
)
def test_slurm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, plugin: str | None, status: str, said: str
) -> None:
    for name in ("sbatch", "sinfo"):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(facts, "version_of", lambda _: plugin)
    (found,) = doctor.slurm(answer_s=0.5)
    assert found.status == status
    assert said in found.text


def test_without_slurm_all_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert statuses(doctor.slurm()) == ["ok"]


def test_disks_full_unwritable_and_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    for free, status in ((5e10, "ok"), (5e9, "warn"), (5e8, "fail")):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: usage(0, 0, free))
        assert statuses(doctor.disk(tmp_path)) == [status]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 5e10))

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    found = list(doctor.disk(tmp_path))
    assert statuses(found) == ["ok", "warn"]
    assert "file locks do not work" in found[1].text
    # Locks that keep nobody off are no locks.
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    assert statuses(doctor.disk(tmp_path)) == ["ok", "warn"]

    def read_only(**_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(doctor.tempfile, "NamedTemporaryFile", read_only)
    (found_here,) = doctor.disk(tmp_path)
    assert (found_here.status, "Read-only file system" in found_here.text) == ("fail", True)


def test_memory_and_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "memory_bytes", lambda: 2**31)
    monkeypatch.setattr(facts, "memory_limit_bytes", lambda: 2**31)
    (found,) = doctor.memory()
    assert found.status == "warn"
    assert "2.0 GiB (a limit of the control group)" in found.text
    monkeypatch.setattr(doctor.locale, "getpreferredencoding", lambda _: "ANSI_X3.4-1968")
    assert statuses(doctor.terminal()) == ["warn"]


def test_limits_of_both_versions_of_control_groups(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "4:memory:/job\n2:cpu,cpuacct:/job\n0::/a/b\n",
        "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": str(2**33),
        "sys/fs/cgroup/a/b/memory.max": "max\n",
        "sys/fs/cgroup/a/memory.max": str(2**32),
        "sys/fs/cgroup/a/b/cpu.max": "150000 100000\n",
        "sys/fs/cgroup/cpu.max": "max 100000\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert facts.memory_limit_bytes(tmp_path) == 2**32
    assert facts.cpu_quota(tmp_path) == 1.5
    assert facts.memory_limit_bytes(tmp_path / "nothing") is None
    assert facts.cpu_quota(tmp_path / "nothing") is None
    assert facts.cores() >= 1
    assert sys.platform != "linux" or facts.memory_bytes() > 2**28
