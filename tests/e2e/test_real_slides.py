"""Real slides of four formats through the whole workflow, with the model that ships."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from tests.geojson_validator import validate

from .workflow import checkout, read_table, snakemake

# The TIFF's resolution is wrong (1000 um/px); the DICOM is a whole mount at 29 um/px, taken here for 2 um/px, which
# keeps the number of tiles small.
SLIDES = {
    "svs": ("CMU-1-Small-Region.svs", ""),
    "ndpi": ("test3-DAPI-2-(387).ndpi", ""),
    "dicom": ("multiframe_camelyon_challenge_image.dcm", "2"),
    "tiff": ("BRACS_1640_N_3_cropped.tiff", "0.5"),
}


@pytest.mark.slow
def test_real_slides(tmp_path: Path, shared_data: Path) -> None:
    folder = checkout(tmp_path / "work")
    rows = [f"{name}\t{shared_data / 'slides' / file}\t{mpp}" for name, (file, mpp) in SLIDES.items()]
    (folder / "slides.tsv").write_text("slide\tpath\tmpp\n" + "\n".join(rows) + "\n")
    done = snakemake(folder, "--config", "slides=slides.tsv")
    assert done.returncode == 0, done.stderr
    table = {row["slide"]: row for row in read_table(folder / "results" / "cohort.tsv")}
    assert set(table) == set(SLIDES)
    for name, row in table.items():
        results = folder / "results" / "slides" / name
        assert row["status"] == "ok"
        assert validate(results / "segmentation.geojson.gz") == []
        features = json.loads(gzip.decompress((results / "segmentation.geojson.gz").read_bytes()))["features"]
        assert features
        um2 = sum(feature["properties"]["measurements"]["Area µm^2"] for feature in features)
        assert um2 / 1e6 == pytest.approx(float(row["tissue_mm2"]), rel=0.02)
    assert "4 times coarser" in table["dicom"]["warnings"]
    assert [table[name]["mpp_source"] for name in SLIDES] == ["metadata", "metadata", "sample sheet", "sample sheet"]
