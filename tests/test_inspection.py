from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sampath_wsi.errors import SlideError
from sampath_wsi.runs.inspection import inspect

from .cli.test_cli import run
from .helpers import blob_slide, write_slide


def test_what_it_says_of_a_slide(tmp_path: Path, tiny_model: Path) -> None:
    slide = blob_slide(tmp_path / "s.tif", size=1000)
    report = inspect(slide, model=str(tiny_model), timing=False)
    assert report.size_level0_px == (1000, 1000)
    assert report.mpp == pytest.approx((0.5, 0.5))
    assert report.mpp_source == "metadata"
    assert report.levels[0].mpp == report.mpp
    # A disc of a third of the side.
    assert report.tissue_share == pytest.approx(np.pi / 9, rel=0.05)
    assert report.tissue_mm2 == pytest.approx(np.pi / 9 * 0.25, rel=0.05)
    assert report.grid == (9, 9)
    assert 0 < (report.tiles or 0) < 81
    assert report.estimate is None
    assert report.warnings == ()


def test_the_estimate_is_measured_and_disk_is_about_right(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slide = blob_slide(tmp_path / "s.tif", size=1000)
    steps: list[tuple[int, int, str]] = []
    report = inspect(slide, model=str(tiny_model), device="cpu", progress=lambda *step: steps.append(step))
    assert report.estimate is not None
    assert report.estimate.how.startswith("measured now: 6 tiles read, ")
    assert set(report.estimate.seconds) == {"tile", "infer", "rest"}
    assert min(report.estimate.seconds.values()) > 0
    assert {"tiles read", "timings of the model"} < {what for *_, what in steps}
    run(capsys, "tile", slide, "--out", tmp_path / "t.zarr", "--model", tiny_model)
    written = sum(path.stat().st_size for path in (tmp_path / "t.zarr" / "rgb").rglob("*") if path.is_file())
    assert report.estimate.tiles_bytes == pytest.approx(written, rel=0.6)


def test_the_estimate_is_made_of_earlier_results(tmp_path: Path, tiny_model: Path) -> None:
    card = json.loads((tiny_model / "card.json").read_text())
    for k in range(4):
        folder = tmp_path / "results" / "slides" / str(k)
        (folder / "run").mkdir(parents=True)
        # The last one was another model's.
        weights = card["weights_sha256"] if k < 3 else "0"
        (folder / "summary.json").write_text(json.dumps({"weights_sha256": weights}))
        record = {"device": "cpu", "tiles": 10, "computed": 10, "seconds": 1000.0 if k == 3 else 20.0 + k}
        (folder / "run" / "infer.json").write_text(json.dumps(record))
    slide = blob_slide(tmp_path / "s.tif", size=600)
    report = inspect(slide, model=str(tiny_model), device="cpu", results=tmp_path / "results")
    assert report.estimate is not None
    assert report.estimate.how.startswith("3 slides in ")
    assert report.estimate.seconds["infer"] == pytest.approx(2.1 * (report.tiles or 0))


def test_without_mpp_it_says_so_and_what_it_can(tmp_path: Path, tiny_model: Path) -> None:
    slide = blob_slide(tmp_path / "s.tif", mpp=None)
    report = inspect(slide, model=str(tiny_model))
    assert report.mpp is None
    assert report.tiles is None
    assert report.levels[0].mpp is None
    assert report.warnings[0].startswith("its metadata hold no resolution (mpp)")
    given = inspect(slide, model=str(tiny_model), mpp=(0.5, 0.6), timing=False)
    assert given.mpp_source == "command line"
    assert "not square" in given.warnings[0]


def test_a_slide_that_must_be_magnified_too_much_is_said(tmp_path: Path, tiny_model: Path) -> None:
    report = inspect(blob_slide(tmp_path / "s.tif", mpp=3), model=str(tiny_model))
    assert report.mpp == (3, 3)
    assert report.tiles is None
    assert report.warnings[-1].startswith("its finest resolution (3 um/px) is 6 times coarser than what the model was")
    exported = inspect(write_slide(tmp_path / "d.tif", np.full((90, 90, 3), 245, np.uint8), mpp=25400 / 300))
    assert exported.mpp is None
    assert "84.6667 um/px, which no scanner has (7.62 x 7.62 mm). Give the true value as mpp" in exported.warnings[0]


def test_a_slide_without_a_pyramid_or_tissue_warns(tmp_path: Path, tiny_model: Path) -> None:
    slide = write_slide(tmp_path / "empty.tif", np.full((400, 400, 3), 245, np.uint8))
    report = inspect(slide, model=str(tiny_model), large_px=1e4)
    assert report.warnings[0].startswith("it has no pyramid")
    assert report.warnings[1] == "no tissue was found"
    assert report.estimate is None


def test_the_command_for_people_and_for_programs(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slide = blob_slide(tmp_path / "s.tif", size=600)
    words = ("inspect", slide, "--model", tiny_model, "--no-timing")
    code, out, _ = run(capsys, *words)
    assert code == 0
    assert "  mpp        0.5 x 0.5 um/px (metadata)\n" in out
    assert "  bounds     the whole slide\n" in out
    assert "for the model tiny (128 px at 0.5 um/px, overlap 16 px), from level 0" in out
    found = json.loads(run(capsys, *words, "--json")[1])
    assert found["size_level0_px"] == [600, 600]
    assert found["levels"][0]["reader"] == "OpenSlide"
    (tmp_path / "bad.svs").write_bytes(b"not a slide")
    code, out, last = run(capsys, "inspect", tmp_path / "bad.svs")
    assert (code, out) == (2, "")
    assert "bad.svs: not a slide that OpenSlide knows" in last


@pytest.mark.parametrize(
    ("name", "reader", "mpp"),
    [("CMU-1-Small-Region.svs", "direct", 0.499), ("test3-DAPI-2-(387).ndpi", "OpenSlide", 0.228)],
)
def test_real_slides(shared_data: Path, tiny_model: Path, name: str, reader: str, mpp: float) -> None:
    report = inspect(shared_data / "slides" / name, model=str(tiny_model), timing=False)
    assert {level.reader for level in report.levels} == {reader}
    assert report.mpp == pytest.approx((mpp, mpp), rel=0.01)
    assert (report.tiles or 0) > 10


def test_a_real_slide_that_breaks_inside(shared_data: Path, tiny_model: Path) -> None:
    with pytest.raises(SlideError, match=r"unreadable.svs: cannot read"):
        inspect(shared_data / "slides" / "unreadable.svs", model=str(tiny_model))
