"""The inference of one slide by several jobs: whatever happens on the way, the bytes are those of a single job."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from sampath_wsi.cli import app
from sampath_wsi.errors import ConfigError, StoreError
from sampath_wsi.stages.infer import parts
from sampath_wsi.stages.infer.parts import Part, join, parts_folder
from sampath_wsi.stages.infer.stage import InferResult, infer
from sampath_wsi.stores.integrity import find_damage, set_aside
from sampath_wsi.stores.store import GrowingStore, aside_of, open_store
from tests.helpers import SPEC, ColourModel, blob_slide, contents, ready, tile, write_slide

BATCH = 4


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiles")
    tile(blob_slide(folder / "s.tif"), folder / "tiles.zarr")
    return folder / "tiles.zarr"


@pytest.fixture(scope="module")
def whole(tiles: Path) -> dict[str, bytes]:
    """What a single job makes."""
    run(tiles, tiles.with_name("whole.zarr"))
    return contents(tiles.with_name("whole.zarr"))


def run(
    tiles: Path, out: Path, part: Part | None = None, *, batch: int = BATCH, weights: str = "f", at_most: int = 10**6
) -> InferResult:
    """A job, which fails after so many batches."""
    spec = replace(SPEC, weights_sha256=weights * 64)

    class Model(ColourModel):
        def __call__(self, rgb):  # type: ignore[no-untyped-def]
            if len(self.calls) == at_most:
                raise RuntimeError("killed")
            return super().__call__(rgb)

    return infer(tiles, out, ready(spec, lambda: Model(spec), batch=batch), part=part)


def cut(of: int) -> list[Part]:
    return [Part(number, of) for number in range(1, of + 1)]


@pytest.mark.parametrize("of", [1, 2, 25])
def test_joined_parts_are_what_one_job_makes(tiles: Path, whole: dict[str, bytes], tmp_path: Path, of: int) -> None:
    out = tmp_path / "p.zarr"
    done = [run(tiles, out, part) for part in reversed(cut(of))]
    facts = join(out, of)
    assert contents(out) == whole
    assert sorted(tmp_path.iterdir()) == [out]
    in_all = len(open_store(out, "probabilities")[1].grid.tiles)
    assert facts["tiles"] == facts["computed"] == in_all == sum(each.tiles for each in done)
    assert max(each.tiles for each in done) <= -(-in_all // BATCH // of) * BATCH + BATCH
    assert join(out, of)["tiles"] == in_all
    assert sorted(tmp_path.iterdir()) == [out]


def test_parts_of_a_finished_slide_compute_nothing(tiles: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "p.zarr"
    run(tiles, out)
    assert run(tiles, out, Part(1, 3)).computed == 0
    assert join(out, 1)["computed"]  # nothing is missing: the store is what it was
    assert contents(out) == whole
    for part in cut(2):
        assert run(tiles, out, part).computed == 0
    # So does Snakemake with the output of a job that it is about to run again.
    (out / "zarr.json").unlink()
    assert join(out, 2)["computed"] == 0
    set_aside(out, [])  # when Snakemake had been killed before it learnt of the end of the join
    assert join(out, 2)["computed"] == 0
    assert contents(out) == whole
    assert sorted(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("of", [1, 3])
def test_a_slide_without_tissue(tmp_path: Path, of: int) -> None:
    blank = write_slide(tmp_path / "s.tif", np.full((300, 300, 3), 245, np.uint8))
    tiles, out = tmp_path / "tiles.zarr", tmp_path / "p.zarr"
    tile(blank, tiles)
    for part in cut(of):
        run(tiles, out, part)
    join(out, of)
    run(tiles, tmp_path / "whole.zarr")
    assert contents(out) == contents(tmp_path / "whole.zarr")


def test_what_was_computed_counts_whatever_the_cut(tiles: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "p.zarr"
    tiles_in_all = len(open_store(tiles, "tiles")[1].grid.tiles)
    with pytest.raises(RuntimeError, match="killed"):
        run(tiles, out, at_most=3)  # the whole slide by one job, which is interrupted
    first = 3 * BATCH + run(tiles, out, Part(2, 2)).computed
    with pytest.raises(RuntimeError, match="killed"):
        run(tiles, out, Part(1, 2), at_most=2)
    with pytest.raises(StoreError, match=rf"p\.zarr: part 1/2 is not finished, tile {5 * BATCH} is .*--part 1/2"):
        join(out, 2)
    # Some batches are in the whole store by now, others in parts; now three jobs go on.
    rest = [run(tiles, out, part).computed for part in cut(3)]
    assert first + 2 * BATCH + sum(rest) == tiles_in_all
    join(out, 3)
    assert contents(out) == whole
    assert sorted(tmp_path.iterdir()) == [out]


def test_one_job_takes_what_parts_computed(tiles: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "p.zarr"
    computed = run(tiles, out, Part(2, 3)).computed
    result = run(tiles, out)
    assert result.computed == result.tiles - computed
    assert contents(out) == whole
    assert sorted(tmp_path.iterdir()) == [out]


def killed_at(call: int, work: Callable[[], object]) -> bool:
    """Do it in a process that is killed before its so-manieth change of the disk; whether that came to pass."""
    if (pid := os.fork()) == 0:
        left = iter(range(call))

        def dying(function):  # type: ignore[no-untyped-def]
            def change(*args, **options):  # type: ignore[no-untyped-def]
                if next(left, None) is None:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*args, **options)

            return change

        for name in ("replace", "write", "unlink", "rmdir"):
            setattr(os, name, dying(getattr(os, name)))
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def test_a_join_that_is_killed_anywhere_goes_on(tmp_path: Path) -> None:
    tiles, made = tmp_path / "tiles.zarr", tmp_path / "made"
    tile(blob_slide(tmp_path / "s.tif", 200), tiles)
    run(tiles, tmp_path / "whole.zarr")
    for part in cut(2):
        run(tiles, made / "p.zarr", part)
    for kills in count(step=3):
        out = shutil.copytree(made, tmp_path / str(kills)) / "p.zarr"
        killed = killed_at(kills, lambda out=out: join(out, 2))  # type: ignore[misc]
        # Then the workflow's next steps, whatever had been done: the jobs again, perhaps cut otherwise, and the join.
        of = 2 + kills % 2
        assert sum(run(tiles, out, part).computed for part in cut(of)) <= BATCH
        join(out, of)
        assert contents(out) == contents(tmp_path / "whole.zarr")
        assert sorted(out.parent.iterdir()) == [out]
        shutil.rmtree(out.parent)
        if not killed:
            break
    assert kills > 40


def test_a_part_that_is_killed_goes_on(tiles: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "p.zarr"
    assert killed_at(7, lambda: run(tiles, out, Part(1, 2)))
    for part in cut(2):
        run(tiles, out, part)
    join(out, 2)
    assert contents(out) == whole


def test_a_damaged_batch_is_computed_again_by_its_part(tiles: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "p.zarr"
    run(tiles, out)
    shard = out / "probability" / "c" / "1" / "0" / "0" / "0"
    shard.write_bytes(shard.read_bytes()[:-1])
    set_aside(out, find_damage(out))
    assert [run(tiles, out, part).computed for part in cut(3)] == [BATCH, 0, 0]
    join(out, 3)
    assert contents(out) == whole


def test_parts_of_another_model_are_not_used(tiles: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "p.zarr"
    run(tiles, out, Part(1, 2), weights="e")
    run(tiles, out, Part(3, 4), weights="e")
    run(tiles, out, Part(2, 2))
    with pytest.raises(StoreError, match=r"p\.zarr: parts 1/2 and 2/2 were not computed alike: weights_sha256\. Run"):
        join(out, 2)
    assert run(tiles, out, Part(1, 2)).computed
    join(out, 2)
    assert contents(out) == whole
    assert sorted(tmp_path.iterdir()) == [out]


def test_what_is_wrong_with_parts_is_named(tiles: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.zarr"
    marker = parts_folder(out) / "1-of-2.done"
    marker.parent.mkdir()
    marker.touch()  # of a part that was computed, says the workflow
    with pytest.raises(StoreError, match="there is no finished probabilities store"):
        join(out, 2)
    assert not marker.exists()
    run(tiles, out, Part(2, 2), batch=8)
    with pytest.raises(StoreError, match=r"part 1/2 was not computed\. Run .* or delete .*p\.zarr\.parts and run"):
        join(out, 2)
    # Two jobs that began at once, each on a device of its own: neither could take what the other chose.
    other = tmp_path / "other" / "p.zarr"
    run(tiles, other, Part(1, 2))
    shutil.copytree(parts_folder(other), parts_folder(out), dirs_exist_ok=True)
    with pytest.raises(StoreError, match="parts 1/2 and 2/2 were not computed alike: batch 4 and 8"):
        join(out, 2)
    shutil.rmtree(parts_folder(out))
    run(tiles, out, Part(1, 2))
    run(tiles, out, Part(2, 2))
    writing = GrowingStore.begin(Part(2, 2).path(out), open_store(tiles, "tiles")[1])
    for work in (lambda: run(tiles, out, Part(2, 2)), lambda: run(tiles, out)):
        with pytest.raises(StoreError, match=rf"2-of-2\.zarr: process {os.getpid()} on .* is writing it"):
            work()
    writing.discard()
    for text in ("0/2", "3/2", "2", "a/b", "1/2/3", "-1/2", "1/99999"):
        with pytest.raises(ConfigError, match=r"part '.*' is unknown"):
            Part.parse(text)
    assert str(Part.parse("2/4")) == "2/4"
    assert parts._part_stores(out) == [Part(1, 2).path(out)]
    assert parts_folder(out).name == "p.zarr.parts"


def test_parts_begun_at_once_in_two_ways_end_in_one(tiles: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    out, other = tmp_path / "p.zarr", tmp_path / "other" / "p.zarr"
    run(tiles, other, Part(2, 2), batch=8)
    run(tiles, out, Part(1, 2))
    shutil.copytree(parts_folder(other), parts_folder(out), dirs_exist_ok=True)
    assert run(tiles, out, Part(1, 2), batch=8).computed == 0
    again = run(tiles, out, Part(2, 2), batch=8)
    assert (again.computed, again.how.batch) == (again.tiles, BATCH)
    join(out, 2)
    assert contents(out) == whole


def test_a_part_begun_otherwise_takes_no_finished_batches(tiles: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    out, other = tmp_path / "p.zarr", tmp_path / "other" / "p.zarr"
    run(tiles, other, Part(1, 2), batch=8)
    run(tiles, out)
    shutil.copytree(parts_folder(other), parts_folder(out))  # left by a run that was killed at its last step
    assert [run(tiles, out, part).computed for part in cut(2)] == [0, 0]
    (out / "zarr.json").unlink()  # as Snakemake does
    join(out, 2)
    assert contents(out) == whole


def test_half_a_batch_does_not_count(tiles: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "p.zarr"
    with pytest.raises(RuntimeError, match="killed"):
        run(tiles, out, at_most=0)
    run(tiles, out, Part(1, 2))
    there, here = (aside_of(path) for path in (Part(1, 2).path(out), out))
    shard = Path("probability", "c", "0", "0", "0", "0")
    (here / shard).parent.mkdir(parents=True)
    (there / shard).rename(here / shard)
    (there / "iou" / "c" / "0" / "0").unlink()
    run(tiles, out)
    assert contents(out) == whole


def test_the_command_that_joins(tiles: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    out, record = tmp_path / "p.zarr", tmp_path / "run" / "infer.json"
    words = ["join", str(out), "--parts", "2", "--record", str(record)]
    failed = CliRunner().invoke(app, words)
    assert isinstance(failed.exception, StoreError)
    assert json.loads(record.read_text())["status"] == "failed"
    for part in cut(2):
        run(tiles, out, part)
        facts = {"status": "ok", "seconds": part.number, "device": f"cuda:{part.number}", "precision": "fp32"}
        record.with_name(f"infer-{part.number}-of-2.json").write_text(json.dumps(facts))
    assert CliRunner().invoke(app, words).exit_code == 0
    assert contents(out) == whole
    facts = json.loads(record.read_text())
    assert (facts["device"], facts["precision"], facts["seconds"]) == ("cuda:1, cuda:2", "fp32", 3)
    assert facts["tiles"] == facts["computed"] == len(open_store(out, "probabilities")[1].grid.tiles)
    assert list(record.parent.iterdir()) == [record]
