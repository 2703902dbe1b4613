"""Stitching on a distributed scheduler of Dask and two workers, which are processes of their own."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest

from sampath_wsi.errors import ConfigError, StoreError
from sampath_wsi.options import StitchOptions
from sampath_wsi.stages.stitch import compute
from sampath_wsi.stages.stitch import stage as stitching
from sampath_wsi.stages.stitch.stage import stitch
from tests.helpers import contents, make_grid, random_probability, write_probabilities

pytest.importorskip("distributed")


@contextmanager
def process(folder: Path, kind: str, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """`dask scheduler` or `dask worker` with a folder of its own."""
    folder.mkdir()
    command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", "--no-dashboard", *words]
    with open(folder / "log", "wb") as log:
        started = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        yield started
    finally:
        started.kill()
        started.wait()


@contextmanager
def scheduler(folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    file = folder / "scheduler.json"
    words = ("--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file))
    with process(folder / "scheduler", "scheduler", *words) as started:
        while not file.exists() or '"address"' not in file.read_text():
            assert started.poll() is None, (folder / "scheduler" / "log").read_text()
            time.sleep(0.05)
        yield file.read_text().split('"address": "')[1].split('"')[0], started


def no_block(*_: object) -> None:
    raise AssertionError("a block was computed by the process that asked for it")


def test_workers_make_what_threads_make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = make_grid((36000, 4000), tile=1024, overlap=128)
    probability = random_probability(np.random.default_rng(0), len(grid.tiles), 3, grid.tile_map_px)
    monkeypatch.chdir(tmp_path)  # that of the workers is another: paths must be sent as absolute ones
    source, out = write_probabilities(Path("p.zarr"), grid, probability), Path("distributed.ome.zarr")
    stitch(source, Path("local.ome.zarr"))
    monkeypatch.setattr(stitching._Blocks, "compute", no_block)
    with ExitStack() as running:
        address, the_scheduler = running.enter_context(scheduler(tmp_path))

        monkeypatch.setattr(compute, "_WAIT_FOR_WORKERS_S", 0.2)
        with pytest.raises(ConfigError, match=rf"dask '{address}': the scheduler has had no worker for .* Start some"):
            stitch(source, out, StitchOptions(dask=address))
        monkeypatch.setattr(compute, "_WAIT_FOR_WORKERS_S", 60)
        workers = [
            running.enter_context(process(tmp_path / name, "worker", address, "--no-nanny", "--nthreads", "1"))
            for name in ("a", "b")
        ]
        steps: list[tuple[int, ...]] = []
        stitch(
            source, out, StitchOptions(dask=address), progress=lambda done, total, what="": steps.append((done, total))
        )
        assert contents(out) == contents(Path("local.ome.zarr"))
        assert any(name.startswith("4/c/") for name in contents(out)), "no level that is made of another one"
        assert steps[-1][0] == steps[-1][1] > 3

        shard = next(p for p in sorted((source / "probability" / "c").rglob("*")) if p.is_file())
        whole = shard.read_bytes()
        shard.write_bytes(whole[:50] + b"damage" + whole[56:])
        with pytest.raises(StoreError, match=r"p\.zarr: chunk 0/0/0/0 of the array 'probability' is damaged"):
            stitch(source, Path("damaged.ome.zarr"), StitchOptions(dask=address))
        shard.write_bytes(whole)

        with monkeypatch.context() as patch:
            patch.setattr(compute, "version", lambda name: {"zarr": "9.9"}.get(name) or sys.modules[name].__version__)
            patch.setattr(compute, "_SAME", ("numpy", "zarr"))
            with pytest.raises(ConfigError, match=r"the worker tcp://.* has zarr 3\..*, not 9\.9\. Install the same"):
                stitch(source, Path("other.ome.zarr"), StitchOptions(dask=address))

        # A worker that dies costs what it had in hand.
        def kill_one(done: int, total: int, what: str = "") -> None:
            workers[0].kill()

        stitch(source, Path("killed.ome.zarr"), StitchOptions(dask=address), progress=kill_one)
        assert contents(Path("killed.ome.zarr")) == contents(out)

        def kill_scheduler(done: int, total: int, what: str = "") -> None:
            if done == 1:
                the_scheduler.kill()

        with pytest.raises(StoreError, match=r"the connection to the scheduler was lost\. Run again"):
            stitch(source, Path("lost.ome.zarr"), StitchOptions(dask=address), progress=kill_scheduler)


def test_a_scheduler_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = make_grid()
    probability = np.zeros((len(grid.tiles), 3, grid.tile_map_px, grid.tile_map_px), np.float32)
    source = write_probabilities(tmp_path / "p.zarr", grid, probability)
    monkeypatch.setattr(compute, "_CONNECT_S", 0.2)
    with pytest.raises(ConfigError, match=r"dask 'tcp://127.0.0.1:1': no Dask scheduler answers there .* Start one"):
        stitch(source, tmp_path / "s.ome.zarr", StitchOptions(dask="tcp://127.0.0.1:1"))
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ConfigError, match=r"not installed here\. pip install 'sampath-wsi\[dask\]'"):
        stitch(source, tmp_path / "s.ome.zarr", StitchOptions(dask="tcp://127.0.0.1:1"))
