"""Faults around a stage: full disks, read-only folders, slides that change, two runs at once, signals."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sampath_wsi.errors import SlideError, StoreError
from sampath_wsi.qupath import ObjectWriter
from sampath_wsi.slides import SlideReader

from .cli.test_cli import run as command_line
from .helpers import blob_slide, contents, tile, write_slide
from .stages.vectorize.maps import CLASSES, natural_map, write_segmentation

COMMAND = str(Path(sys.executable).with_name("sampath-wsi"))


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=3600)


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small tmpfs needs root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_is_one_line_and_the_rerun_goes_on(
    small_disk: Path,
    tmp_path: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    noise = np.random.default_rng(0).integers(0, 200, (900, 900, 3), dtype=np.uint8)
    slide = write_slide(tmp_path / "s.tif", noise)
    out, record = small_disk / "tiles.zarr", tmp_path / "tile.json"
    command = ("tile", slide, "--out", out, "--model", tiny_model, "--no-tissue", "--record", record)
    line = last_line(done := run(*command))
    assert done.returncode == 2
    assert line.startswith(f"sampath-wsi: error: {out}: 64 tiles take about 0.00")
    assert not list(small_disk.iterdir())
    # As where others take the room meanwhile.
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10**12))
        code, _, line = command_line(capsys, *command)
    assert code == 2
    assert line.startswith(f"sampath-wsi: error: {out}")
    assert "No space left on device. Free some space there and run again: finished work is kept." in line
    assert "No space left" in json.loads(record.read_text())["error"]
    assert not out.exists()
    kept = (small_disk / ".tiles.zarr.partial" / "done.journal").read_text().count("\n") - 1
    assert kept > 0
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    assert run(*command).returncode == 0
    tile_whole = run("tile", slide, "--out", tmp_path / "tiles.zarr", "--model", tiny_model, "--no-tissue")
    assert tile_whole.returncode == 0
    assert contents(out) == contents(tmp_path / "tiles.zarr")


def test_a_read_only_output_is_one_line(small_disk: Path, tmp_path: Path) -> None:
    write_segmentation(tmp_path / "m.zarr", natural_map(64, 64, seed=1))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    done = run("vectorize", tmp_path / "m.zarr", "--out", small_disk / "out" / "s.geojson.gz")
    assert done.returncode == 2
    assert "Read-only file system. The file system is read-only: write to another folder." in last_line(done)


def test_a_full_disk_leaves_no_half_geojson(small_disk: Path, tmp_path: Path) -> None:
    write_segmentation(tmp_path / "m.zarr", natural_map(300, 300, seed=1))
    (small_disk / "filler").write_bytes(bytes(2_097_152 - 8192))
    done = run("vectorize", tmp_path / "m.zarr", "--out", small_disk / "s.geojson.gz")
    assert done.returncode == 2
    assert "No space left on device" in last_line(done)
    assert [p.name for p in small_disk.iterdir()] == ["filler"]


@pytest.mark.parametrize("fate", ["changes", "vanishes"])
def test_a_slide_that_does_not_stay_is_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fate: str) -> None:
    slide = blob_slide(tmp_path / "s.tif")
    original, reads = SlideReader.read, []

    def disturbed(self, box, size, *, what="a region", out=None):  # type: ignore[no-untyped-def]
        reads.append(what)
        if len(reads) == 40:
            if fate == "vanishes":
                slide.unlink()
            else:
                with open(slide, "ab") as file:
                    file.write(b"more")
        return original(self, box, size, what=what, out=out)

    monkeypatch.setattr(SlideReader, "read", disturbed)
    expected = {"changes": "s.tif: the slide changed while it was tiled", "vanishes": "there is no such slide"}
    with pytest.raises(SlideError, match=expected[fate]):
        tile(slide, tmp_path / "tiles.zarr")
    assert not (tmp_path / "tiles.zarr").exists()
    # What was read of a slide that changed is of no use; one that vanished may come back as it was.
    assert (tmp_path / ".tiles.zarr.partial").exists() == (fate == "vanishes")


def test_the_second_of_two_runs_is_told_who_is_first(tmp_path: Path, tiny_model: Path) -> None:
    slide = blob_slide(tmp_path / "s.tif", size=2500)
    command = ("tile", slide, "--out", tmp_path / "tiles.zarr", "--model", tiny_model, "--no-tissue", "--threads", 1)
    journal = tmp_path / ".tiles.zarr.partial" / "done.journal"
    with subprocess.Popen([COMMAND, *map(str, command)], stderr=subprocess.DEVNULL) as first:
        while first.poll() is None and not (journal.exists() and journal.stat().st_size):
            time.sleep(0.001)
        first.send_signal(signal.SIGSTOP)
        second = run(*command)
        assert second.returncode == 2
        assert f"tiles.zarr: process {first.pid} on " in last_line(second)
        first.kill()
    assert run(*command).returncode == 0, "the lock outlived its process"
    assert not journal.parent.exists()


def test_one_geojson_has_one_writer(tmp_path: Path) -> None:
    out = tmp_path / "s.geojson"
    with ObjectWriter(out), pytest.raises(StoreError, match=r"s\.geojson: another process is writing it"):
        ObjectWriter(out).__enter__()
    assert json.loads(out.read_text())["features"] == []
    with ObjectWriter(out):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["s.geojson"]


def test_sigterm_finishes_the_batch_and_the_rerun_goes_on(tmp_path: Path, tiny_model: Path) -> None:
    slide, tiles, out = blob_slide(tmp_path / "s.tif", size=1500), tmp_path / "tiles.zarr", tmp_path / "p.zarr"
    assert run("tile", slide, "--out", tiles, "--model", tiny_model).returncode == 0
    record, journal = tmp_path / "infer.json", tmp_path / ".p.zarr.partial" / "done.journal"
    command = ("infer", tiles, "--out", out, "--model", tiny_model, "--batch", 2, "--threads", 1, "--record", record)
    with subprocess.Popen([COMMAND, *map(str, command)], stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not (journal.exists() and journal.read_text().count("\n") > 1):
            time.sleep(0.001)
        process.send_signal(signal.SIGTERM)
        _, messages = process.communicate(timeout=3600)
    assert process.returncode == 143
    assert (
        messages.splitlines()[-1] == "sampath-wsi: stopped by SIGTERM; the same command goes on with what is finished"
    )
    assert "Traceback" not in messages
    assert json.loads(record.read_text())["error"] == "stopped by SIGTERM"
    done = journal.read_text().count("\n") - 1
    assert run(*command).returncode == 0
    facts = json.loads(record.read_text())
    assert facts["computed"] == facts["tiles"] - 2 * done


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_vectorize_cut_off_leaves_nothing_and_can_be_rerun(tmp_path: Path, number: signal.Signals) -> None:
    label_map = np.tile(natural_map(400, 400, seed=1, sigma=3, classes=2), (5, 5))
    write_segmentation(tmp_path / "m.zarr", label_map, classes=CLASSES[:2])
    out, aside = tmp_path / "cut" / "s.geojson", tmp_path / "cut" / ".s.geojson.partial"
    with subprocess.Popen(
        [COMMAND, "vectorize", str(tmp_path / "m.zarr"), "--out", str(out)], stderr=subprocess.PIPE, text=True
    ) as process:
        while process.poll() is None and not aside.exists():
            time.sleep(0.003)
        process.send_signal(number)
        _, messages = process.communicate(timeout=3600)
    assert process.returncode == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[number]
    assert "Traceback" not in messages
    assert not out.exists()
    assert run("vectorize", tmp_path / "m.zarr", "--out", out).returncode == 0
    assert run("vectorize", tmp_path / "m.zarr", "--out", tmp_path / "whole.geojson").returncode == 0
    assert out.read_bytes() == (tmp_path / "whole.geojson").read_bytes()
    assert [path.name for path in out.parent.iterdir()] == ["s.geojson"]


def test_nothing_asks_what_time_it_is() -> None:
    """So clocks that jump, or differ between machines, change nothing."""
    asks = re.compile(r"time\.time\(|\.now\(|\.today\(|st_mtime|getmtime")
    package = Path(__file__).resolve().parents[1] / "sampath_wsi"
    found = [path.name for path in sorted(package.rglob("*.py")) if asks.search(path.read_text(encoding="utf-8"))]
    # Times of files only say there that a file is read again; what was read decides.
    assert found == ["content.py"]
