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
from sampath_wsi.slides import inspect_slide
from sampath_wsi.stages.infer.stage import infer
from sampath_wsi.stages.tile import TileOptions, tile_slide
from sampath_wsi.stores.store import open_store, read_array
from tests.helpers import ColourModel, blob_slide, model_spec


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    out = tmp_path / "tiles.zarr"
    tile_slide(inspect_slide(blob_slide(tmp_path / "s.tif")), out, TileOptions(0.5, 64, 16, 4), slide_id="a")
    return out


def run(tiles: Path, out: Path, model: ColourModel | None = None, batch: int = 4):  # type: ignore[no-untyped-def]
    frame = model_spec(open_store(tiles, "tiles")[1].grid)
    model = model or ColourModel(frame)
    return infer(tiles, out, frame, lambda: model, precision="fp32", batch=batch), model


def contents(store: Path) -> dict[Path, bytes]:
    """Every file of a store but the one that tells how long the run took."""
    files = {p.relative_to(store): p for p in store.rglob("*") if p.is_file()}
    del files[Path("run/zarr.json")]
    return {name: path.read_bytes() for name, path in files.items()}


def test_probabilities_of_every_tile(tiles: Path, tmp_path: Path) -> None:
    result, _ = run(tiles, tmp_path / "p.zarr")
    source, _ = open_store(tiles, "tiles")
    group, made_by = open_store(tmp_path / "p.zarr", "probabilities")
    assert result.computed == result.tiles == len(made_by.grid.tiles)
    expected, _ = ColourModel(model_spec(made_by.grid))(np.asarray(read_array(source, "rgb")[:]))
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

    frame = model_spec(open_store(tiles, "tiles")[1].grid)
    with pytest.raises(RuntimeError, match="killed"):
        run(tiles, tmp_path / "p.zarr", Failing(frame))
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

    frame = model_spec(open_store(tiles, "tiles")[1].grid)
    with pytest.raises(type(error)):
        run(tiles, tmp_path / "p.zarr", Failing(frame))
    _, *done = (tmp_path / ".p.zarr.partial" / "done.journal").read_text().splitlines()
    assert done == ["0", "4", "8"]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("loader", "writer"))]


def test_sigterm_amid_a_batch_counts_at_its_end(tiles: Path, tmp_path: Path) -> None:
    class Told(ColourModel):
        def __call__(self, rgb):  # type: ignore[no-untyped-def]
            if len(self.calls) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().__call__(rgb)

    frame = model_spec(open_store(tiles, "tiles")[1].grid)
    with pytest.raises(Stopped), stoppable():
        run(tiles, tmp_path / "p.zarr", Told(frame))
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
        run(tiles, tmp_path / "p.zarr", Clumsy(model_spec(open_store(tiles, "tiles")[1].grid)))
    result, _ = run(tiles, tmp_path / "p.zarr")
    assert result.computed == result.tiles


def test_a_finished_store_is_reused_and_loads_no_model(tiles: Path, tmp_path: Path) -> None:
    run(tiles, tmp_path / "p.zarr")
    frame = model_spec(open_store(tiles, "tiles")[1].grid)

    def never() -> ColourModel:
        raise AssertionError("the model was loaded")

    assert infer(tiles, tmp_path / "p.zarr", frame, never, precision="fp32", batch=4).reused
    other = replace(frame, weights_sha256="e" * 64)
    with pytest.raises(AssertionError, match="loaded"):
        infer(tiles, tmp_path / "p.zarr", other, never, precision="fp32", batch=4)


def test_tiles_made_for_another_model_are_refused(tiles: Path, tmp_path: Path) -> None:
    frame = replace(model_spec(open_store(tiles, "tiles")[1].grid), mpp=0.25, name="fine")
    with pytest.raises(ModelError, match=r"do not fit the model 'fine', which wants 64 px at 0\.25 um/px"):
        infer(tiles, tmp_path / "p.zarr", frame, lambda: ColourModel(frame), precision="fp32", batch=4)
    assert list(tmp_path.glob("*p.zarr*")) == []


def test_no_tissue_no_model(tmp_path: Path) -> None:
    from tests.helpers import write_slide

    blank = write_slide(tmp_path / "s.tif", np.full((300, 300, 3), 245, np.uint8))
    tile_slide(inspect_slide(blank), tmp_path / "tiles.zarr", TileOptions(0.5, 64, 16, 4), slide_id="a")
    result, model = run(tmp_path / "tiles.zarr", tmp_path / "p.zarr")
    assert (result.tiles, model.calls) == (0, [])
