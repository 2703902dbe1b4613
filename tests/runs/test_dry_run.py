from __future__ import annotations

import json
from pathlib import Path

import pytest

from sampath_wsi.stores.store import JOURNAL, aside_of
from tests.cli.test_cli import run
from tests.helpers import blob_slide


def test_a_dry_run_says_what_the_run_then_does(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slide, folder = blob_slide(tmp_path / "s.tif", size=600), tmp_path / "out"
    tiles, probabilities, segmentation = (folder / f"{name}.zarr" for name in ("t", "p", "s"))
    stages = {
        tiles: ["tile", slide, "--out", tiles, "--model", tiny_model],
        probabilities: ["infer", tiles, "--out", probabilities, "--model", tiny_model, "--device", "cpu"],
        segmentation: ["stitch", probabilities, "--out", segmentation],
        folder / "o.geojson": ["vectorize", segmentation, "--out", folder / "o.geojson"],
    }
    overlay = folder / "overlay.png"
    pictures = {
        overlay: ["report", slide, segmentation, "--overlay", overlay, "--summary", folder / "summary.json"],
        folder / "entropy.ome.tif": ["images", segmentation, "--out-dir", folder, "--entropy"],
    }
    said = []
    for out, command in (stages | pictures).items():
        record = folder.parent / "record.json"
        for state in ("begins", "is finished" if out.suffix == ".zarr" else "is there and would be replaced"):
            before = sorted(tmp_path.rglob("*"))
            code, printed, _ = run(capsys, *command, "--dry-run", "--record", record)
            assert code == 0
            assert sorted(tmp_path.rglob("*")) == before
            (line,) = [line for line in printed.splitlines() if line.startswith(f"{out}: ") and state in line]
            assert line.endswith(state) or out.suffix == ".zarr"
            said.append(printed)
            run(capsys, *command)
    tiled = json.loads(json.dumps(said[0])).splitlines()[0]
    assert "of 6 x 6 tiles, 128 px at 0.5 um/px, overlap 16 px; at most " in tiled
    assert "tiles of 3 classes, by the model tiny on cpu in " in said[2]
    assert "a map of 150 x 150 px at 2 um/px, 3 classes; at most 120.0 kB" in said[4]
    assert "classes Tumor, Stroma, Necrosis" in said[6]
    assert f"{folder / 'summary.json'}: of 3 classes on 21 tiles; begins" in said[8]
    assert "150 x 150 px; begins" in said[10]


def test_it_says_from_where_a_stage_goes_on(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slide, tiles, out = blob_slide(tmp_path / "s.tif", size=600), tmp_path / "t.zarr", tmp_path / "p.zarr"
    tile = ("tile", slide, "--out", tiles, "--model", tiny_model)
    infer = ("infer", tiles, "--out", out, "--model", tiny_model, "--device", "cpu", "--batch", 4)
    run(capsys, *tile)
    run(capsys, *infer)
    for command, path, unit in ((infer, out, 4), (tile, tiles, 3)):
        path.rename(aside_of(path))
        (aside_of(path) / JOURNAL).write_text("0\n")
        printed = run(capsys, *command, "--dry-run")[1]
        assert f"{path}: goes on: {unit} of 21 tiles are done" in printed
        aside_of(path).rename(path)
    assert f"{out}: is finished" in run(capsys, *infer[:-1], 2, "--dry-run")[1]
    assert "made from something else or otherwise" in run(capsys, *infer, "--precision", "bf16", "--dry-run")[1]
