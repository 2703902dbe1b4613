"""The commands of `sampath-wsi qupath`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.test_cli import run
from tests.geojson_validator import validate
from tests.stages.vectorize.maps import natural_map, write_segmentation


def test_scripts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, results = tmp_path / "s", tmp_path / "results"
    code, printed, _ = run(capsys, "qupath", "scripts", "--out", str(out), "--results", str(results))
    assert code == 0
    assert printed.splitlines() == [str(out / "import_results.groovy"), str(out / "export_annotations.groovy")]
    assert f"def resultsFolder = '{results}'\n" in (out / "import_results.groovy").read_text()
    (out / "import_results.groovy").write_text("changed")
    code, _, error = run(capsys, "qupath", "scripts", "--out", str(out))
    assert code == 2
    assert "import_results.groovy: is there and differs" in error
    assert run(capsys, "qupath", "scripts", "--out", str(out), "--force")[0] == 0
    assert "def resultsFolder = ''\n" in (out / "import_results.groovy").read_text()


def test_tiles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = natural_map(60, 80, seed=2)
    labels[:, 60:] = 0
    grid = write_segmentation(tmp_path / "s.zarr", labels)
    out, record = tmp_path / "t.geojson.gz", tmp_path / "run" / "tile-objects.json"
    code, _, _ = run(capsys, "qupath", "tiles", str(tmp_path / "s.zarr"), "--out", str(out), "--record", str(record))
    assert code == 0
    assert validate(out) == []
    facts = json.loads(record.read_text())
    assert (facts["status"], facts["frame"]) == ("ok", "qupath")
    assert sum(facts["objects"].values()) + facts["left_out"] == len(grid.tiles)
    code, _, error = run(capsys, "qupath", "tiles", str(tmp_path / "none.zarr"), "--out", str(out))
    assert code == 2
    assert "no finished segmentation store" in error


def test_limits_of_vectorize_are_in_log_and_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    write_segmentation(tmp_path / "s.zarr", natural_map(400, 400, seed=1, sigma=3, classes=2))
    record = tmp_path / "vectorize.json"
    common = ("vectorize", str(tmp_path / "s.zarr"), "--out", str(tmp_path / "s.geojson.gz"), "--record", str(record))
    with caplog.at_level("INFO"):
        assert run(capsys, *common, "--max-vertices", "300", "--max-objects", "2")[0] == 0
    facts = json.loads(record.read_text())
    assert facts["pieces"] > facts["cut_objects"] > 0
    assert any("annotations, more than 2: QuPath paints" in warning for warning in facts["warnings"])
    logged = "\n".join(each.getMessage() for each in caplog.records)
    assert f"{facts['cut_objects']} objects of more than 300 vertices were cut into {facts['pieces']} pieces" in logged
    assert "annotations, more than 2: QuPath paints" in logged
    code, _, error = run(capsys, *common, "--max-vertices", "10")
    assert code == 2
    assert "at least 100" in error
