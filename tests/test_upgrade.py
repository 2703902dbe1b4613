"""A stage whose arithmetic changed is done anew, and those after it; the others keep their results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sampath_wsi import CustomModel, TissueClass, segment_slide
from sampath_wsi.errors import StoreError
from sampath_wsi.results import SlideResults
from sampath_wsi.stages import VERSIONS
from sampath_wsi.stores.store import GrowingStore, open_store

from .cli.test_cli import run
from .helpers import blob_slide, make_grid, slide_record

CLASSES = tuple(TissueClass(name=name, color=(9, 9, 9)) for name in ("R", "G", "B"))


class Predictor:
    """Red, green and blue as classes; counts the tiles that it sees."""

    def __init__(self) -> None:
        self.tiles = 0

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        self.tiles += len(rgb)
        tiles, height, width, _ = rgb.shape
        small = rgb.reshape(tiles, height // 4, 4, width // 4, 4, 3).mean((2, 4)) + 1
        return np.moveaxis(small / small.sum(-1, keepdims=True), -1, 1)


def stamps(results: SlideResults) -> dict[str, int]:
    """When each result was written, by the inode of what was put in place."""
    stores = {"infer": results.probabilities, "stitch": results.segmentation}
    return {stage: (store / "zarr.json").stat().st_ino for stage, store in stores.items()}


@pytest.mark.parametrize(("stage", "anew"), [("stitch", {"stitch"}), ("infer", {"infer", "stitch"}), ("tile", None)])
def test_python_makes_anew_what_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, anew: set[str] | None
) -> None:
    slide, predictor = blob_slide(tmp_path / "s.tif", size=400), Predictor()
    model = CustomModel("own", CLASSES, mpp=0.5, tile_px=128, overlap_px=16, predict=predictor)
    first = segment_slide(slide, tmp_path, model=model)
    before, seen = stamps(first), predictor.tiles
    segment_slide(slide, tmp_path, model=model)
    assert (stamps(first), predictor.tiles) == (before, seen)
    monkeypatch.setitem(VERSIONS, stage, 99)
    segment_slide(slide, tmp_path, model=model)
    assert {name for name, stamp in stamps(first).items() if stamp != before[name]} == (anew or {"infer", "stitch"})
    assert predictor.tiles == seen * (1 if stage == "stitch" else 2)
    assert open_store(first.segmentation, "segmentation")[1].versions[stage] == 99


def test_commands_remake_changed_and_refuse_outdated_stores(
    tmp_path: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    slide, (tiles, probabilities, segmentation) = (
        blob_slide(tmp_path / "s.tif", size=300),
        (tmp_path / f"{name}.zarr" for name in "tps"),
    )
    commands = {
        "tile": ("tile", slide, "--out", tiles, "--model", tiny_model),
        "infer": ("infer", tiles, "--out", probabilities, "--model", tiny_model, "--device", "cpu"),
        "stitch": ("stitch", probabilities, "--out", segmentation),
    }
    for command in commands.values():
        assert run(capsys, *command)[0] == 0
    old = VERSIONS["tile"]
    monkeypatch.setitem(VERSIONS, "tile", 99)
    for name, refused in (("infer", tiles), ("stitch", probabilities)):
        code, _, error = run(capsys, *commands[name])
        assert code == 2
        assert f"{refused}: version {old} of the stage 'tile' made it, this program has version 99. Run that" in error
    for name, out in (("tile", tiles), ("infer", probabilities), ("stitch", segmentation)):
        caplog.clear()
        with caplog.at_level("INFO"):
            assert run(capsys, *commands[name])[0] == 0
        assert f"{out}: made anew, since this differs: tile {old} and 99" in caplog.text


def test_an_unfinished_store_of_an_older_version_is_not_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sampath_wsi.stores.provenance import Provenance

    for version, done in ((1, set()), (1, {0}), (2, set())):
        monkeypatch.setitem(VERSIONS, "tile", version)
        with GrowingStore.begin(tmp_path / "t.zarr", Provenance("tiles", slide_record(), make_grid())) as store:
            assert store.done == done
            store.mark_done(0)


def test_a_store_of_version_0_1_is_answered(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import json

    from sampath_wsi.stores.provenance import Provenance

    path = tmp_path / "t.zarr"
    path.mkdir()
    record = {"format_version": 1, "kind": "tiles", "slide": {}, "grid": {}, "options": {}, "inputs": {}}
    text = json.dumps({"zarr_format": 3, "node_type": "group", "attributes": {"sampath_wsi": record}})
    (path / "zarr.json").write_text(text)
    with pytest.raises(StoreError, match=r"t\.zarr: written in format 1, this version reads format 2\. Make it anew"):
        open_store(path, "tiles")
    with (
        caplog.at_level("INFO"),
        GrowingStore.begin(path, Provenance("tiles", slide_record(), make_grid())) as store,
    ):
        store.finish()
    assert f"{path}: made anew, since another version of this program wrote it" in caplog.text
    assert open_store(path, "tiles")[1].slide.id == "a"
