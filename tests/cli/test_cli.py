from __future__ import annotations

import errno
import json
import shutil
import sys
from pathlib import Path

import pytest

from sampath_wsi import __version__
from sampath_wsi.cli import main
from sampath_wsi.stores.store import open_store
from tests.helpers import blob_slide


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Run the command line in this process: exit code, standard output, last line of standard error."""
    sys.argv = ["sampath-wsi", *map(str, words)]
    code = 0
    try:
        main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert not any("Traceback" in line for line in lines)
    return code, captured.out, lines[-1] if lines else ""


@pytest.fixture(autouse=True)
def _restore_argv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", sys.argv)


def test_the_four_stages_and_the_report(tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slide, folder = blob_slide(tmp_path / "a slide.tif"), tmp_path / "results" / "slides" / "a_slide"
    stores = [folder / name for name in ("tiles.zarr", "probabilities.zarr", "segmentation.ome.zarr")]
    commands = [
        ["tile", slide, "--out", stores[0], "--model", tiny_model],
        ["infer", stores[0], "--out", stores[1], "--model", tiny_model, "--device", "cpu", "--precision", "fp32"],
        ["stitch", stores[1], "--out", stores[2]],
        ["vectorize", stores[2], "--out", folder / "segmentation.geojson.gz"],
    ]
    for command in commands:
        record = folder / "run" / f"{command[0]}.json"
        code, _, last = run(capsys, *command, "--record", record)
        assert code == 0, last
        assert json.loads(record.read_text())["status"] == "ok"
    pictures = ["--overlay", folder / "overlay.png", "--summary", folder / "summary.json"]
    assert run(capsys, "report", slide, stores[2], *pictures)[0] == 0
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["slide"] == "a_slide"
    assert summary["model"] == "tiny"
    assert "the slide's longer side is 0.3 mm" in summary["warnings"][0]
    assert set(summary["seconds"]) == {"tile", "infer", "stitch", "vectorize"}
    assert sum(entry["percent"] for entry in summary["classes"].values()) == pytest.approx(100)
    code, out, _ = run(capsys, "show", tmp_path / "results")
    assert code == 0
    assert "segmentation.geojson.gz" in out
    assert "Without a result" not in out
    folder.with_name("b").mkdir()
    assert run(capsys, "show", tmp_path / "results")[1].endswith("for reasons that the table gives: b\n")


@pytest.fixture
def damaged(tmp_path: Path, tiny_model: Path) -> Path:
    """A folder of models, each broken in its own way."""
    for name in ("truncated", "nocard", "badcard", "othershape"):
        shutil.copytree(tiny_model, tmp_path / name)
    weights = tmp_path / "truncated" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    (tmp_path / "nocard" / "card.json").unlink()
    card = json.loads((tiny_model / "card.json").read_text())
    (tmp_path / "badcard" / "card.json").write_text(json.dumps({**card, "mpp": -1}))
    deeper = {**card["architecture"], "decoder_dim": 64}
    (tmp_path / "othershape" / "card.json").write_text(json.dumps({**card, "architecture": deeper}))
    return tmp_path


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("truncated", r"weights.safetensors: truncated or altered"),
        ("nocard", r"not a model, it holds no card.json"),
        ("badcard", r"not a valid model card: mpp"),
        ("othershape", r"the weights do not fit the card's architecture"),
        ("missing", r"there is no model"),
    ],
)
def test_models_that_cannot_be_used(
    damaged: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str], model: str, message: str
) -> None:
    slide, tiles = blob_slide(damaged / "s.tif"), damaged / "tiles.zarr"
    assert run(capsys, "tile", slide, "--out", tiles, "--model", tiny_model)[0] == 0
    out = damaged / "probabilities.zarr"
    code, _, last = run(capsys, "infer", tiles, "--out", out, "--model", damaged / model)
    assert code == 2
    assert last.startswith("sampath-wsi: error: ")
    assert message in last
    assert not out.exists()


@pytest.mark.parametrize("name", ["broken.svs", "unopenable.tiff", "unreadable.svs"])
def test_real_bad_slides(
    tmp_path: Path, shared_data: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    out, record = tmp_path / "tiles.zarr", tmp_path / "tile.json"
    words = ("tile", shared_data / "slides" / name, "--out", out, "--model", tiny_model, "--record", record)
    code, _, last = run(capsys, *words)
    assert code == 2
    assert last.startswith("sampath-wsi: error: ")
    assert name in last
    assert not out.exists()
    assert json.loads(record.read_text())["status"] == "failed"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.svs", "there is no such slide"),
        ("empty.svs", "the file is empty"),
        ("folder.svs", "this is a directory"),
        ("nompp.tif", "its metadata hold no resolution (mpp)"),
        ("absurd.tif", "1000 x 1000 um/px, which no scanner has"),
    ],
)
def test_slides_that_cannot_be_tiled(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    (tmp_path / "empty.svs").touch()
    (tmp_path / "folder.svs").mkdir()
    blob_slide(tmp_path / "nompp.tif", mpp=None)
    blob_slide(tmp_path / "absurd.tif", mpp=1000)
    before = sorted(tmp_path.rglob("*"))
    code, _, last = run(capsys, "tile", tmp_path / name, "--out", tmp_path / "t.zarr", "--model", tiny_model)
    assert code == 2
    assert last.startswith("sampath-wsi: error: ")
    assert name in last
    assert message in last
    assert sorted(tmp_path.rglob("*")) == before


def test_a_resolution_from_the_command_line_is_recorded(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slide, out = blob_slide(tmp_path / "s.tif", mpp=1000), tmp_path / "t.zarr"
    assert run(capsys, "tile", slide, "--out", out, "--model", tiny_model, "--mpp", "0.5x0.4")[0] == 0
    grid = open_store(out, "tiles")[1].grid
    assert (grid.mpp_x, grid.mpp_y, grid.mpp_source) == (0.5, 0.4, "command line")


def test_a_truncated_checkpoint_is_not_converted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    checkpoint = tmp_path / "last.ckpt"
    torch.save({"state_dict": {"model.x": torch.zeros(100)}}, checkpoint)
    checkpoint.write_bytes(checkpoint.read_bytes()[:-200])
    code, _, last = run(capsys, "model", "convert", checkpoint, tmp_path / "model")
    assert code == 2
    assert "last.ckpt" in last
    assert not (tmp_path / "model").exists()


def test_models_are_listed_and_shown(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "model", "list")
    assert code == 0
    assert "sampath-bcss" in out
    assert json.loads(run(capsys, "model", "list", "--json")[1])["demo"]["problem"] is None
    assert json.loads(run(capsys, "model", "show", tiny_model, "--json")[1])["name"] == "tiny"
    assert "mpp          0.5 um/px\ntile         128 px, overlap 16 px\n" in run(capsys, "model", "show", tiny_model)[1]


def test_a_full_disk_and_a_forbidden_folder_are_one_line(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sampath_wsi.stores import store

    slide = blob_slide(tmp_path / "s.tif")
    for number, message in ((errno.ENOSPC, "Free some space"), (errno.EROFS, "write to another folder")):

        def full(*_: object, number: int = number, **__: object) -> None:
            raise OSError(number, "no luck", "/some/where")

        monkeypatch.setattr(store.zarr, "create_group", full)
        words = ("tile", slide, "--out", tmp_path / "tiles.zarr", "--model", tiny_model)
        code, _, last = run(capsys, *words)
        assert code == 2
        assert "/some/where: no luck" in last
        assert message in last


def test_version_help_and_typos(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version")[1].strip() == f"sampath-wsi {__version__}"
    code, out, _ = run(capsys, "tile", "--help")
    assert code == 0
    assert "Example:\n  sampath-wsi tile a.svs --out a/tiles.zarr --model demo\n" in out
    code, _, last = run(capsys, "tyle")
    assert code == 2
    assert "No such command 'tyle'" in last


def test_importing_the_command_line_loads_nothing_heavy() -> None:
    import subprocess

    code = "import sys, sampath_wsi.cli; print([m for m in ('torch', 'zarr', 'dask', 'shapely') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_bad_options_are_one_line(tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slide, tiles = blob_slide(tmp_path / "s.tif"), tmp_path / "tiles.zarr"
    for words, message in (
        (["tile", slide, "--out", tiles, "--model", tiny_model, "--mpp", "fine"], "mpp 'fine' is not a resolution"),
        (["tile", slide, "--out", tiles, "--model", tiny_model, "--overlap", "100"], "does not fit a tile of 128 px"),
        (["infer", tiles, "--out", tmp_path / "p.zarr", "--model", tiny_model], "there is no finished tiles store"),
        (["infer", tiles, "--out", tiles, "--model", tiny_model, "--device", "tpu"], "device: 'tpu' cannot be used"),
        (["stitch", tmp_path / "p.zarr", "--out", tmp_path / "s.zarr"], "no finished probabilities store"),
    ):
        code, _, last = run(capsys, *words)
        assert code == 2
        assert message in last


@pytest.mark.parametrize("option", ["--tissue-mask", "--roi"])
def test_a_missing_mask_or_region_is_named(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    slide, out = blob_slide(tmp_path / "s.tif"), tmp_path / "tiles.zarr"
    words = ("tile", slide, "--out", out, "--model", tiny_model, option, tmp_path / "nowhere.geojson")
    code, _, last = run(capsys, *words)
    assert code == 2
    assert "nowhere.geojson" in last
    assert not out.exists()


def test_truth_of_another_shape_is_refused(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import numpy as np
    import tifffile

    slide = blob_slide(tmp_path / "s.tif", size=300)
    stores = [tmp_path / name for name in ("tiles.zarr", "probabilities.zarr", "segmentation.ome.zarr")]
    run(capsys, "tile", slide, "--out", stores[0], "--model", tiny_model)
    run(capsys, "infer", stores[0], "--out", stores[1], "--model", tiny_model)
    run(capsys, "stitch", stores[1], "--out", stores[2])
    label = np.asarray(open_store(stores[2], "segmentation")[0]["labels/classes/0"][:])
    tifffile.imwrite(tmp_path / "truth.tif", label)
    out = tmp_path / "scores.json"
    assert run(capsys, "evaluate", stores[2], tmp_path / "truth.tif", "--out", out)[0] == 0
    scores = json.loads(out.read_text())
    assert scores["macro"]["dice"] == 1
    assert scores["no_tissue"]["dice"] == 1
    for truth, message in ((label[:10], "is not a class map"), (label + 9, "the model has 3 classes")):
        tifffile.imwrite(tmp_path / "truth.tif", truth)
        code, _, last = run(capsys, "evaluate", stores[2], tmp_path / "truth.tif", "--out", out)
        assert code == 2
        assert message in last
