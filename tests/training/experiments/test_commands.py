"""The commands that the experiments' rules call, but for those that train and test."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from sampath_wsi.cli import app
from sampath_wsi.errors import ConfigError, DataError, ModelError


def run(*words: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_fetch_links_or_copies_weights(tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"weights")
    run("model", "fetch", weights, tmp_path / "out" / "sam.pth")
    assert (tmp_path / "out" / "sam.pth").read_bytes() == b"weights"
    with pytest.raises(ModelError, match="there are no such encoder weights"):
        run("model", "fetch", "sam_vit_z", tmp_path / "z.pth")


def test_tiny_encoders(tmp_path: Path) -> None:
    for kind in ("sam", "hipt"):
        run("demo-encoder", kind, tmp_path / f"{kind}.pth")
        assert (tmp_path / f"{kind}.pth").stat().st_size < 30e6
    with pytest.raises(ConfigError, match="no tiny encoder 'vit'"):
        run("demo-encoder", "vit", tmp_path / "vit.pth")


def test_stand_ins(tmp_path: Path) -> None:
    run("demo-data", "crag", tmp_path / "raw", "--images", 4, "--size", 64)
    assert len(list((tmp_path / "raw").rglob("*.png"))) == 8


def test_reports_without_scores_say_so(tmp_path: Path) -> None:
    missing = tmp_path / "official" / "test" / "sampath-seed0" / "scores.json"
    with pytest.raises(DataError, match="Run the test again"):
        run("experiment", "report", "crag", missing, "--out", tmp_path)
    with pytest.raises(DataError, match="Run the test again"):
        run("experiment", "sweep", "crag", missing, "--alpha", 0.25, "--beta", 0, "--out", tmp_path)
