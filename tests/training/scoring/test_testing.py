"""Tests of models from the command line: what is written, and what is refused."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sampath_wsi.classes import TissueClass
from sampath_wsi.cli import main
from sampath_wsi.metrics import ConfusionMatrix
from sampath_wsi.synthetic.stand_ins import write_tiny_encoder
from sampath_wsi.training.data.prepared import DatasetInfo, read_prepared
from sampath_wsi.training.data.prepared_writer import LabelledImage, write_prepared

COLOURS = {"Tumor": (200, 0, 0), "Stroma": (150, 200, 150), "Necrosis": (50, 50, 50)}
GLANDS = {"Background": (180, 180, 180), "Gland": (200, 0, 0)}
SIZES = [(150, 90), (40, 60), (128, 128)]


def _classes(colours: dict[str, tuple[int, int, int]]) -> tuple[TissueClass, ...]:
    return tuple(TissueClass(name=name, color=color) for name, color in colours.items())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of several sizes for the tiny model, and a field of two overlapping tiles."""
    folder = tmp_path_factory.mktemp("prepared") / "data"
    rng = np.random.default_rng(0)
    images: list[LabelledImage] = []
    for k, (width, height) in enumerate(SIZES):
        image = rng.integers(0, 256, (height, width, 3), np.uint8)
        images.append(
            LabelledImage(f"s{k}", image, rng.integers(0, 4, (height, width), np.uint8), f"g{k // 2}", "test")
        )
    image, labels = rng.integers(0, 256, (100, 180, 3), np.uint8), rng.integers(0, 4, (100, 180), np.uint8)
    for k, x in enumerate((0, 80)):
        part = np.s_[:, x : x + 100]
        images.append(LabelledImage(f"t{k}", image[part], labels[part], "g2", "test", field="region/1", x_px=x))
    images.append(LabelledImage("u", image, labels * 0, "g2", "unlabelled"))
    write_prepared(folder, DatasetInfo(name="shapes", classes=_classes(COLOURS), mpp=0.5), {"all": lambda: images})
    return folder


@pytest.fixture(scope="module")
def glands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bright discs on a dark ground, with instances."""
    folder = tmp_path_factory.mktemp("prepared") / "glands"
    y, x = np.mgrid[:70, :90]
    images: list[LabelledImage] = []
    for k in range(2):
        instances = np.zeros((70, 90), np.uint16)
        instances[(y - 20) ** 2 + (x - 20) ** 2 < 200] = 300
        instances[(y - 45) ** 2 + (x - 60) ** 2 < 300 + 50 * k] = 7
        image = np.where(instances > 0, 220, 60).astype(np.uint8)[..., None].repeat(3, 2)
        labels = np.where(instances > 0, 2, 1).astype(np.uint8)
        images.append(LabelledImage(f"s{k}", image, labels, f"g{k}", "test", instances=instances))
    images.append(LabelledImage("bare", image, labels, "g3", "val"))
    write_prepared(folder, DatasetInfo(name="discs", classes=_classes(GLANDS), mpp=0.5), {"all": lambda: images})
    return folder


def _run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: object) -> tuple[int, str]:
    """Exit code and last line of standard error."""
    monkeypatch.setattr(sys, "argv", ["sampath-wsi", *map(str, words)])
    code = 0
    try:
        main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    lines = capsys.readouterr().err.strip().splitlines()
    assert not any("Traceback" in line for line in lines)
    return code, lines[-1] if lines else ""


def test_a_model_is_scored(
    data: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("test", tiny_model, "--data", data, "--split", "test", "--device", "cpu", "--threads", 1)
    assert _run(capsys, monkeypatch, *words, "--out", tmp_path / "a", "--maps", "--batch", 2)[0] == 0
    scores = json.loads((tmp_path / "a" / "scores.json").read_text())
    assert (scores["model"], scores["data"], scores["split"], scores["splits_file"]) == ("tiny", "shapes", "test", None)
    assert (scores["fields"], scores["groups"], scores["classes"]) == (4, 3, list(COLOURS))
    assert len(scores["weights_sha256"]) == 64
    assert scores["leakage"]["severity"] == "leak"  # the field's group is also in the split "unlabelled"
    assert scores["options"] == {
        "tta": 1,
        "min_area_um2": 0.0,
        "precision": "fp32",
        "batch": 2,
        "tile_px": 128,
        "threads": 1,
    }
    assert 0 < scores["seconds_per_image"]["model"] <= scores["seconds_per_image"]["mean"]

    with (tmp_path / "a" / "counts.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["field"] for row in rows] == ["s0", "s1", "s2", "region/1"]
    assert [row["group"] for row in rows] == ["g0", "g0", "g1", "g2"]
    truths = {s.sample: read_prepared(data).read(s)[1] for s in read_prepared(data).samples}
    truths["region/1"] = np.hstack([truths["t0"], truths["t1"][:, 20:]])
    total = ConfusionMatrix.empty(3)
    for row in rows:
        truth, name = truths[row["field"]], f"{row['field'].replace('/', '_')}.png"
        matrix = ConfusionMatrix.of(truth, np.asarray(Image.open(tmp_path / "a" / "labels" / name)), 3)
        assert matrix.counts.sum() == (truth > 0).sum()
        for i, j in np.ndindex(3, 4):
            assert int(row[f"true_{i + 1}_predicted_{j}"]) == matrix.counts[i, j]
        assert np.asarray(Image.open(tmp_path / "a" / "pictures" / name)).ndim == 3
        total += matrix
    assert scores["confusion"] == total.counts.tolist()
    assert {name: entry["value"] for name, entry in scores["scores"].items()} == total.scores(list(COLOURS))
    for entry in scores["scores"].values():
        assert entry["low"] <= entry["value"] <= entry["high"]
        assert entry["group_low"] <= entry["group_high"]
    assert scores["as_in_the_paper"]["dice"]["value"] == scores["scores"]["accuracy"]["value"]

    splits = tmp_path / "splits.csv"
    splits.write_text("sample,split\ns0,other\ns2,test\n")
    assert _run(capsys, monkeypatch, *words, "--out", tmp_path / "b", "--splits", splits, "--tta", 4)[0] == 0
    scores = json.loads((tmp_path / "b" / "scores.json").read_text())
    assert (scores["fields"], scores["splits_file"], scores["options"]["tta"]) == (1, str(splits), 4)
    assert scores["scores"]["accuracy"]["low"] is None
    assert scores["leakage"]["severity"] == "none"
    assert not (tmp_path / "b" / "labels").exists()


def test_vanilla_sam_is_scored(
    glands: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_encoder("sam", tmp_path / "sam.pth")
    write = ("--out", tmp_path / "a", "--device", "cpu")
    words = ("test-prompts", "--sam", tmp_path / "sam.pth", "--data", glands, *write)
    assert _run(capsys, monkeypatch, *words, "--maps")[0] == 0
    scores = json.loads((tmp_path / "a" / "scores.json").read_text())
    assert scores["model"] == "vanilla SAM (sam)"
    assert scores["fields"] == 2
    assert np.sum(scores["confusion"]) == 2 * 70 * 90
    assert scores["as_in_the_paper"]["iou"] == scores["as_in_the_paper"]["iou_corrected"]
    assert scores["options"]["drop_larger_than"] is None
    predicted = np.asarray(Image.open(tmp_path / "a" / "labels" / "s0.png"))
    assert (predicted == 2).any()
    # With nothing allowed to stay, all is background.
    assert _run(capsys, monkeypatch, *words, "--drop-larger-than", 0)[0] == 0
    scores = json.loads((tmp_path / "a" / "scores.json").read_text())
    assert np.array(scores["confusion"])[:, 2].sum() == 0
    assert scores["options"]["drop_larger_than"] == 0


def _rewrite(folder: Path, source: Path, **changes: object) -> Path:
    """The same data under another ``dataset.json``."""
    folder.mkdir()
    for name in ("samples.csv", "images", "labels", "instances"):
        if (source / name).exists():
            (folder / name).symlink_to(source / name)
    info = json.loads((source / "dataset.json").read_text()) | changes
    (folder / "dataset.json").write_text(json.dumps(info))
    return folder


def test_what_does_not_fit_is_named(
    data: Path,
    glands: Path,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_tiny_encoder("sam", tmp_path / "sam.pth")
    coarse = _rewrite(tmp_path / "coarse", data, mpp=1.0)
    test, dots = ("test", tiny_model, "--data"), ("test-prompts", "--sam", tmp_path / "sam.pth", "--data")
    for words, message in (
        ((*test, glands), "has the classes Background, Gland, the model tiny Tumor, Stroma, Necrosis"),
        ((*test, coarse), "has 1.0 um/px, the model tiny wants 0.5"),
        ((*test, data, "--split", "val"), "no sample of the split 'val'"),
        ((*test, data, "--split", "unlabelled"), "no pixel of the split 'unlabelled' is labelled"),
        ((*test, data, "--tta", 2), "'2' is not one of '1', '4', '8'"),
        (("test", "nothing", "--data", data), "there is no model 'nothing'"),
        ((*dots, data), "has 3 classes (Tumor, Stroma, Necrosis)"),
        ((*dots, glands, "--split", "val"), "1 samples of the split 'val' have no instances, such as bare"),
        (("test-prompts", "--sam", tmp_path / "no.pth", "--data", glands), "there are no such encoder weights"),
        ((*test, data, "--flips=4"), "there is no option --flips. It is called --tta now"),
        (
            ("test-dots", "--sam", "sam_vit_b", "--data", glands),
            "no command test-dots. It is called test-prompts now",
        ),
    ):
        code, last = _run(capsys, monkeypatch, *words, "--out", tmp_path / "out", "--device", "cpu")
        assert code == 2
        assert message in last
    assert not (tmp_path / "out").exists()
