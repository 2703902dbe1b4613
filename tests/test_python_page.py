"""docs/python.md runs as it stands, on a small slide with the tiny model in place of the one that ships."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import sampath_wsi
from sampath_wsi import CustomModel, TissueClass, read_results, segment_slide
from sampath_wsi.errors import ConfigError, ModelError, StoreError

from .conftest import ROOT
from .helpers import blob_slide, write_slide


def test_the_page_runs(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 9
    blob_slide(tmp_path / "demo.tif", size=400)
    monkeypatch.chdir(tmp_path)
    code = "\n".join(blocks).replace('slide="demo"', "slide='demo'").replace('"demo"', repr(str(tiny_model)))
    exec(compile(code, "docs/python.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "results/slides/demo/segmentation.geojson.gz" in printed
    assert "missing.svs: there is no such slide" in printed
    dark = read_results("results-dark")[0]
    assert set(dark.class_areas_mm2) == {"Dark", "Pale"}
    # The disc is (200, 120, 170), so it is dark; most of it is inside.
    assert dark.class_areas_mm2["Dark"] == pytest.approx(np.pi * (400 / 3 * 0.5e-3) ** 2, rel=0.1)


def colours(rgb: np.ndarray) -> np.ndarray:
    """Red, green and blue as classes."""
    colours.calls += 1  # type: ignore[attr-defined]
    tiles, height, width, _ = rgb.shape
    small = rgb.reshape(tiles, height // 4, 4, width // 4, 4, 3).mean((2, 4)) + 1
    return np.moveaxis(small / small.sum(-1, keepdims=True), -1, 1)


def own(**changes: object) -> CustomModel:
    classes = tuple(TissueClass(name=name, color=(9, 9, 9)) for name in ("R", "G", "B"))
    fields = {"name": "own", "classes": classes, "mpp": 0.5, "tile_px": 128, "overlap_px": 16, "predict": colours}
    return CustomModel(**{**fields, **changes})  # type: ignore[arg-type]


def test_a_second_call_predicts_nothing(tmp_path: Path) -> None:
    slide = blob_slide(tmp_path / "s.tif", size=400)
    steps: list[tuple[int, int, str]] = []
    colours.calls = 0  # type: ignore[attr-defined]
    first = segment_slide(slide, tmp_path, model=own(), progress=lambda *step: steps.append(step))
    assert {what for *_, what in steps} == {
        "parts of the overview",
        "tiles",
        "blocks",
        "chunks surveyed",
        "chunks outlined",
        "objects written",
    }
    assert not (first.folder / "tiles.zarr").exists()
    assert first.summary["device"] == "own predictor"
    geojson, calls = first.geojson.read_bytes(), colours.calls  # type: ignore[attr-defined]
    assert calls > 0
    again = segment_slide(slide, tmp_path, model=own())
    assert colours.calls == calls  # type: ignore[attr-defined]
    assert again.geojson.read_bytes() == geojson
    segment_slide(slide, tmp_path, model=own(version="2"))
    assert colours.calls == 2 * calls  # type: ignore[attr-defined]


def test_what_is_read_back_fits_together(tmp_path: Path) -> None:
    rgb = np.full((600, 600, 3), 245, np.uint8)
    rgb[100:500, 100:300] = (220, 60, 60)
    rgb[100:500, 300:500] = (60, 60, 220)
    result = segment_slide(write_slide(tmp_path / "two.tif", rgb), tmp_path, model=own(), vectorize={"tolerance": 0})
    labels = result.class_map()
    assert labels.shape == result.probability("R").shape == (150, 150)
    assert set(np.unique(labels)) == {0, 1, 3}
    sums = sum(result.probability(c.name) for c in result.classes)
    assert np.allclose(sums[labels > 0], 1, atol=1e-6)
    for name, value in (("R", 1), ("B", 3)):
        area = (labels == value).sum() * result.mpp() ** 2 / 1e6
        assert result.class_areas_mm2[name] == pytest.approx(area)
        drawn = sum(each.geometry.area for each in result.polygons() if each.class_name == name) * 0.25 / 1e6
        assert drawn == pytest.approx(area, rel=0.01)
    with pytest.raises(ConfigError, match=r"knows no class 'X'. Its classes: R, G, B"):
        result.probability("X")
    with pytest.raises(StoreError, match=r"no level 9. Choose one from 0 to"):
        result.class_map(9)


def test_a_predictor_of_another_shape_is_named(tmp_path: Path) -> None:
    slide = blob_slide(tmp_path / "s.tif", size=400)
    with pytest.raises(ModelError, match=r"'own' gives an array \(\d, 3, 128, 128\) where \(\d, 3, 32, 32\) is wanted"):
        segment_slide(slide, tmp_path, model=own(predict=lambda rgb: np.moveaxis(rgb / 765, -1, 1)))
    record = tmp_path / "slides" / "s" / "run" / "infer.json"
    assert '"status": "failed"' in record.read_text()


def test_importing_the_package_costs_nothing() -> None:
    code = "import sys, sampath_wsi; print(sorted(m for m in sys.modules if m in ('numpy', 'typer', 'zarr', 'torch')))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
    assert all(getattr(sampath_wsi, name) is not None for name in sampath_wsi.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        sampath_wsi.nothing  # noqa: B018


def test_keywords_are_checked_before_anything_is_written(tmp_path: Path) -> None:
    slide = blob_slide(tmp_path / "s.tif", size=400)
    for wrong, message in (
        ({"overlap_px": 3}, r"segment_slide: there is no key 'overlap_px'.*known: slide_id, mpp"),
        ({"vectorise": {}}, "is 'vectorize' meant"),
        ({"slide_id": "../s"}, r"segment_slide, slide_id: '\.\./s' cannot be used"),
        ({"vectorize": {"min_area": -1}}, r"segment_slide, vectorize\.min_area: -1 cannot be used"),
        ({"tile": {"overlap": "x"}}, r"tile\.overlap: 'x' cannot be used"),
    ):
        with pytest.raises(ConfigError, match=message):
            segment_slide(slide, tmp_path / "out", model=own(), **wrong)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_all_that_the_workflow_writes_can_be_asked_for(tmp_path: Path) -> None:
    slide = blob_slide(tmp_path / "s.tif", size=400)
    options = {"vectorize": {"tiles": True}, "images": {"classes": True, "entropy": True}, "slide_id": "named"}
    found = segment_slide(slide, tmp_path, model=own(), mpp=(0.5, 0.5), **options)  # type: ignore[arg-type]
    assert found.folder.name == "named"
    assert found.tile_objects.exists()
    assert [found.image(name).exists() for name in ("classes", "entropy", "probability")] == [True, True, False]
