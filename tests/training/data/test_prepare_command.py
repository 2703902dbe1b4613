"""The commands `prepare ...`."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from sampath_wsi.cli import app, main
from sampath_wsi.training.data.prepared import read_prepared

from .prepare_helpers import make_bcss, make_crag, make_glas_archive, save


def test_data_sets_are_prepared_with_their_warnings_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make = {"bcss": make_bcss, "crag": make_crag, "glas": make_glas_archive}
    for name, maker in make.items():
        source = maker(tmp_path / name)
        with caplog.at_level(logging.INFO, logger="sampath_wsi"):
            result = CliRunner().invoke(app, ["prepare", name, str(source), str(tmp_path / f"{name}-out")])
        assert result.exit_code == 0, result.output
        assert len(read_prepared(tmp_path / f"{name}-out").samples) == {"bcss": 4, "crag": 3, "glas": 3}[name]
    text = caplog.text
    assert "prepare: warning: BCSS has 106 images in train, here are 2" in text
    assert "prepare: warning: CRAG has 40 images in test, here are 1" in text
    assert "(testA 1, testB 1, train 1); Background, Gland" in text


def test_options_reach_the_preparation(tmp_path: Path) -> None:
    label_map = tmp_path / "two.yaml"
    label_map.write_text(
        "name: two\nother_codes: Rest\nclasses:\n"
        "  - {name: Tumor, color: [1, 2, 3], codes: {1: tumor}}\n  - {name: Rest, color: [4, 5, 6]}\n"
    )
    arguments = ["prepare", "bcss", str(make_bcss(tmp_path / "bcss")), str(tmp_path / "out")]
    options = ["--label-map", str(label_map), "--tile-px", "50", "--mpp", "0.31"]
    assert CliRunner().invoke(app, [*arguments, *options]).exit_code == 0
    data = read_prepared(tmp_path / "out")
    assert [c.name for c in data.info.classes] == ["Tumor", "Rest"]
    assert data.info.mpp == 0.31
    assert set(data.sizes_px.values()) == {(50, 50)}
    for old in (["--coding", str(label_map)], [f"--coding={label_map}"]):
        refused = CliRunner().invoke(app, [*arguments, *old])
        assert str(refused.exception) == "there is no option --coding. It is called --label-map now."


def test_an_error_is_one_line_and_keeps_finished_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = make_crag(tmp_path / "crag"), tmp_path / "out"
    command = ["sampath-wsi", "prepare", "crag", str(source), str(out)]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    before = (out / "samples.csv").read_text()
    save(np.zeros((9, 9), np.uint8), source / "valid" / "Annotation" / "valid_0.png")
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert "valid_0.png: the mask is 9 x 9 px, its image 60 x 50 px" in line
    assert (out / "samples.csv").read_text() == before
    assert not list(tmp_path.glob("*.partial"))


def test_data_are_prepared_without_what_trains() -> None:
    code = (
        "import pkgutil, sys, sampath_wsi.training.data as data\n"
        "for module in pkgutil.walk_packages(data.__path__, data.__name__ + '.'): __import__(module.name)\n"
        "print(*sorted({'torch', 'lightning', 'tensorboard'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"
