"""docs/training.md, followed to the letter: annotate, train, segment, open."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import numpy as np
import pytest
import shapely
import tifffile
from rasterio import features

from tests.geojson_validator import validate

from .workflow import ROOT, checkout, shell


@pytest.mark.slow
def test_the_page_on_training_can_be_followed(tmp_path: Path) -> None:
    folder = checkout(tmp_path / "work")
    for block in re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / "training.md").read_text(), re.DOTALL):
        done = shell(folder, block)
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    opened = folder / "practice" / "results" / "slides" / "s3" / "segmentation.geojson.gz"
    assert validate(opened) == []
    with gzip.open(opened) as file:
        objects = json.load(file)["features"]
    assert {entry["properties"]["classification"]["name"] for entry in objects} == {"Tumor", "Benign"}
    # The slide took no part in the training; its truth has one pixel for so many of the slide.
    truth = tifffile.imread(folder / "practice" / "s3.truth.tif")
    scale = truth.shape[1] / 2400
    tumor = [e["geometry"] for e in objects if e["properties"]["classification"]["name"] == "Tumor"]
    drawn = features.rasterize(
        [shapely.transform(shapely.geometry.shape(geometry), lambda xy: xy * scale) for geometry in tumor],
        out_shape=truth.shape,
    ).astype(bool)
    true = np.isin(truth, (1, 4))
    assert 2 * (drawn & true).sum() / (drawn.sum() + true.sum()) > 0.85
