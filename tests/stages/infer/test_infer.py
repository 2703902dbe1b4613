from __future__ import annotations

import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sampath_wsi.errors import ModelError, StoreError
from sampath_wsi.machine.stopping import Stopped, stoppable
from sampath_wsi.stages import VERSIONS
from sampath_wsi.stages.infer.stage import infer
from sampath_wsi.stores.store import open_store, read_array
from tests.helpers import SPEC, ColourModel, blob_slide, contents, ready, tile


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    out = tmp_path / "tiles.zarr"
    tile(blob_slide(tmp_path / "s.tif"), out)
    return out


def run(tiles: Path, out: Path, model: ColourModel | None = None, batch: int = 4):  # type: ignore[no-untyped-def]
    model = model or ColourModel(SPEC)
    return infer(tiles, out, ready(SPEC, lambda: model, batch=batch)), model


def test_probabilities_of_every_tile(tiles: Path, tmp_path: Path) -> None:
    result, _ = run(tiles, tmp_path / "p.zarr")
    source, _ = open_store(tiles, "tiles")
    group, made_by = open_store(tmp_path / "p.zarr", "probabilities")
    assert result.computed == result.tiles == len(made_by.grid.tiles)
    expected, _ = ColourModel(SPEC)(np.asarray(read_array(source, "rgb")[:]))
    assert (read_array(group, "probability")[:] == expected).all()
    assert (read_array(group, "iou")[:] == 0.5).all()
    assert (read_array(group, "tissue")[:] == read_array(source, "tissue")[:]).all()


def test_goes_on_with_the_batch_where_it_stopped(tiles: Path, tmp_path: Path) -> None:
    _, whole = run(tiles, tmp_path / "whole.zarr")

    class Failing(ColourModel):
        def __call__(self, rgb):  # type: ignore[no-untyped-def]
            if len(self.calls) == 5:
                raise RuntimeError("killed")
            return super().__call__(rgb)

    with pytest.raises(RuntimeError, match="killed"):
        run(tiles, tmp_path / "p.zarr", Failing(SPEC))
    with pytest.raises(StoreError, match="no finished probabilities store"):
        open_store(tmp_path / "p.zarr", "probabilities")
    result, rest = run(tiles, tmp_path / "p.zarr")
    assert 5 + len(rest.calls) <= len(whole.calls) + 1
    assert result.computed < result.tiles
    assert contents(tmp_path / "p.zarr") == contents(tmp_path / "whole.zarr")
    facts = open_store(tmp_path / "p.zarr", "probabilities")[0]["run"].attrs
    assert (facts["tiles"], facts["computed"]) == (result.tiles, result.computed)
    assert facts["device_busy"] == pytest.approx(result.busy, abs=1e-4)


@pytest.mark.parametrize("error", [RuntimeError("device"), KeyboardInterrupt()])
def test_what_was_computed_before_a_failure_is_written(tiles: Path, tmp_path: Path, error: BaseException) -> None:
    class Failing(ColourModel):
        def __call__(self, rgb):  # type: ignore[no-untyped-def]
            if len(self.calls) == 3:
                raise error
            return super().__call__(rgb)

    with pytest.raises(type(error)):
        run(tiles, tmp_path / "p.zarr", Failing(SPEC))
    _, *done = (tmp_path / ".p.zarr.partial" / "done.journal").read_text().splitlines()
    assert done == ["0", "4", "8"]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("loader", "writer"))]


def test_sigterm_amid_a_batch_counts_at_its_end(tiles: Path, tmp_path: Path) -> None:
    class Told(ColourModel):
        def __call__(self, rgb):  # type: ignore[no-untyped-def]
            if len(self.calls) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().__call__(rgb)

    with pytest.raises(Stopped), stoppable():
        run(tiles, tmp_path / "p.zarr", Told(SPEC))
    _, *done = (tmp_path / ".p.zarr.partial" / "done.journal").read_text().splitlines()
    assert done == ["0", "4", "8"]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_failures_to_load_and_to_write_come_out_as_they_are(tiles: Path, tmp_path: Path) -> None:
    shard = max((tiles / "rgb" / "c").rglob("*"), key=lambda path: path.is_file() and path.stat().st_size)
    whole = shard.read_bytes()
    shard.write_bytes(whole[:100] + bytes(200) + whole[300:])
    with pytest.raises(StoreError, match=r"tiles\.zarr: chunk \d+/0/0/0 of the array 'rgb' is damaged.*checksum"):
        run(tiles, tmp_path / "p.zarr")
    shard.unlink()
    with pytest.raises(StoreError, match=r"tiles\.zarr: chunk \d+/0/0/0 of the array 'rgb'.*its file is missing"):
        run(tiles, tmp_path / "p.zarr")
    shard.write_bytes(whole)

    class Clumsy(ColourModel):
        def __call__(self, rgb):  # type: ignore[no-untyped-def]
            probability, iou = super().__call__(rgb)
            return probability[:, :, :-1], iou

    with pytest.raises(ValueError, match="shape"):
        run(tiles, tmp_path / "p.zarr", Clumsy(SPEC))
    result, _ = run(tiles, tmp_path / "p.zarr")
    assert result.computed == result.tiles


def test_a_finished_store_is_reused_and_loads_no_model(tiles: Path, tmp_path: Path) -> None:
    run(tiles, tmp_path / "p.zarr")

    def never() -> ColourModel:
        raise AssertionError("the model was loaded")

    assert infer(tiles, tmp_path / "p.zarr", ready(SPEC, never)).reused
    other = replace(SPEC, weights_sha256="e" * 64)
    with pytest.raises(AssertionError, match="loaded"):
        infer(tiles, tmp_path / "p.zarr", ready(other, never))


def test_another_device_computes_nothing_anew(tiles: Path, tmp_path: Path) -> None:
    run(tiles, tmp_path / "p.zarr")

    def never() -> ColourModel:
        raise AssertionError("the model was loaded")

    assert infer(tiles, tmp_path / "p.zarr", ready(SPEC, never, precision="fp16", batch=16)).reused
    asked = ready(SPEC, never, precision="bf16", asked="bf16")
    with pytest.raises(AssertionError, match="loaded"):
        infer(tiles, tmp_path / "p.zarr", asked)


def test_another_device_goes_on_as_it_was_begun(tiles: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Failing(ColourModel):
        def __call__(self, rgb):  # type: ignore[no-untyped-def]
            if len(self.calls) == 3:
                raise RuntimeError("killed")
            return super().__call__(rgb)

    run(tiles, tmp_path / "whole.zarr")
    with pytest.raises(RuntimeError, match="killed"):
        run(tiles, tmp_path / "p.zarr", Failing(SPEC))
    asked: list[str] = []
    laptop = replace(
        ready(SPEC, lambda: ColourModel(SPEC), precision="bf16", batch=1),
        load=lambda precision: asked.append(precision) or ColourModel(SPEC),
    )
    with caplog.at_level("INFO"):
        result = infer(tiles, tmp_path / "p.zarr", laptop)
    assert (asked, result.how.precision, result.how.batch) == (["fp32"], "fp32", 4)
    assert result.computed == result.tiles - 12
    assert "goes on as it was begun, in fp32 with 4 tiles a batch" in caplog.text
    assert contents(tmp_path / "p.zarr") == contents(tmp_path / "whole.zarr")


def test_tiles_of_an_older_version_are_refused(tiles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = VERSIONS["tile"]
    monkeypatch.setitem(VERSIONS, "tile", 99)
    said = rf"version {old} of the stage 'tile' made it, this program has version 99\. Run"
    with pytest.raises(StoreError, match=said):
        run(tiles, tmp_path / "p.zarr")


def test_tiles_made_for_another_model_are_refused(tiles: Path, tmp_path: Path) -> None:
    spec = replace(SPEC, mpp=0.25, name="fine")
    with pytest.raises(ModelError, match=r"do not fit the model 'fine', which wants 64 px at 0\.25 um/px"):
        infer(tiles, tmp_path / "p.zarr", ready(spec, lambda: ColourModel(spec)))
    assert list(tmp_path.glob("*p.zarr*")) == []


def test_no_tissue_no_model(tmp_path: Path) -> None:
    from tests.helpers import write_slide

    blank = write_slide(tmp_path / "s.tif", np.full((300, 300, 3), 245, np.uint8))
    tile(blank, tmp_path / "tiles.zarr")
    result, model = run(tmp_path / "tiles.zarr", tmp_path / "p.zarr")
    assert (result.tiles, model.calls) == (0, [])
