"""`snakemake train` on slides that were annotated: prepared, split by slide, trained, tested."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from sampath_wsi.synthetic import make_slide

from .workflow import checkout, snakemake, snapshot

ARCHITECTURE = {
    "image_size": 64,
    "decoder_dim": 32,
    "sam": {"embed_dim": 16, "depth": 1, "heads": 2, "window": 4, "global_blocks": [0]},
    "pathology": None,
}
TINY = [
    "pretrained=null",
    "freeze_encoders=false",
    "overlap_px=16",
    "tile_px=128",
    "epochs=2",
    "batch_size=2",
    "precision=fp32",
    f"architecture={json.dumps(ARCHITECTURE)}",
]


def _annotation(name: str, x: int, y: int, side: int) -> dict[str, object]:
    ring = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
    properties = {"objectType": "annotation", "classification": {"name": name, "color": [200, 0, 0]}}
    return {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": properties}


@pytest.mark.slow
def test_a_model_is_trained_on_annotated_slides(tmp_path: Path) -> None:
    folder = checkout(tmp_path / "work")
    rows = ["slide,path,annotations"]
    for number in range(3):
        make_slide(folder / f"s{number}.tif", width_px=1024, height_px=1024, mpp=0.5, seed=number)
        features = [_annotation("Tumor", 100, 100, 300), _annotation("Stroma", 400, 300, 300)]
        (folder / f"s{number}.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
        rows.append(f"s{number},s{number}.tif,s{number}.geojson")
    (folder / "annotated.csv").write_text("\n".join(rows) + "\n")
    training = {"source": "annotated.csv", "prepare": {"tile_px": 128}, "set": TINY, "val_share": 0.3, "device": "cpu"}
    # A sample sheet that is not there: training must not miss it.
    (folder / "mine.yaml").write_text(yaml.safe_dump({"slides": "none.tsv", "training": training}))
    command = ("train", "--configfile", "mine.yaml")
    done = snakemake(folder, *command)
    assert done.returncode == 0, done.stderr
    results = folder / "results" / "training"
    with (results / "splits.csv").open(newline="") as file:
        splits = {(row["sample"].split("_")[0], row["split"]) for row in csv.DictReader(file)}
    assert sorted(split for _, split in splits) == ["train", "train", "val"], "a slide is on one side"
    assert json.loads((results / "leakage.json").read_text())["severity"] == "none"
    card = json.loads((results / "model" / "card.json").read_text())
    assert [c["name"] for c in card["classes"]] == ["Stroma", "Tumor"]
    scores = json.loads((results / "scores" / "scores.json").read_text())
    assert np.sum(scores["confusion"]) == 2 * 300 * 300
    with Image.open(next((results / "scores" / "pictures").glob("*.png"))) as picture:
        assert min(picture.size) >= 128
    before = snapshot(results)
    again = snakemake(folder, *command)
    assert "Nothing to be done" in again.stdout + again.stderr
    assert snapshot(results) == before

    failed = snakemake(folder, *command, "--config", "training={source: nowhere.csv, output: other}")
    assert failed.returncode != 0
    assert "nowhere.csv" in (folder / "other" / "logs" / "data.log").read_text()
