"""Both sides of every limit beyond which a result is doubtful."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sampath_wsi.files import write_json
from sampath_wsi.stages.doubts import SlideLook, doubts_of_classes, doubts_of_slide
from sampath_wsi.stages.report import write_summary

from .vectorize.maps import write_segmentation

GOOD = SlideLook(side_mm=20.0, mpp=0.5, mpp_model=0.5, tissue_share=0.3, brightness=240.0, colour=60.0)


def test_a_good_slide_and_one_nobody_looked_at_are_no_doubt() -> None:
    assert doubts_of_slide(GOOD) == []
    assert doubts_of_slide(replace(GOOD, tissue_share=None, brightness=None, colour=None)) == []


@pytest.mark.parametrize(
    ("field", "fine", "doubtful", "said"),
    [
        ("brightness", 64, 63, "dark, as fluorescence"),
        ("colour", 8, 7, "has no colour"),
        ("mpp", 0.75, 0.76, "1.52 times coarser"),
        ("side_mm", 0.5, 0.49, "0.49 mm, under 0.5 mm: check its resolution (0.5 um/px)"),
        ("side_mm", 150, 151, "151 mm, over 150 mm"),
        ("tissue_share", 0.001, 0.0009, "0.09 % of the slide is tissue, under 0.1 %"),
        ("tissue_share", 0.95, 0.96, "96.0 % of the slide is tissue, over 95 %"),
    ],
)
def test_each_limit_of_a_slide(field: str, fine: float, doubtful: float, said: str) -> None:
    assert doubts_of_slide(replace(GOOD, **{field: fine})) == []
    (warning,) = doubts_of_slide(replace(GOOD, **{field: doubtful}))
    assert said in warning


def test_no_tissue_is_said_elsewhere_and_dark_once() -> None:
    assert doubts_of_slide(replace(GOOD, tissue_share=0.0)) == []
    assert len(doubts_of_slide(replace(GOOD, brightness=10, colour=0))) == 1


def test_one_class_over_98_percent() -> None:
    assert doubts_of_classes({"Tumor": 98.0, "Stroma": 2.0}) == []
    (warning,) = doubts_of_classes({"Tumor": 98.1, "Stroma": 1.9})
    assert warning == "98.1 % of the tissue is Tumor, over 98 %: look at the overlay"
    assert doubts_of_classes({"Gland": 100.0}) == []
    assert doubts_of_classes({"Tumor": 0.0, "Stroma": 0.0}) == []


def test_a_class_that_covers_all_is_warned_of_in_the_summary(tmp_path: Path) -> None:
    labels = np.ones((40, 40), np.uint8)
    write_segmentation(tmp_path / "s.zarr", labels)
    (warning,) = write_summary(tmp_path / "s.zarr", tmp_path / "run", tmp_path / "summary.json")
    assert warning.startswith("100.0 % of the tissue is ")
    write_json(tmp_path / "run" / "tile.json", {"warnings": ["dark"]})
    write_summary(tmp_path / "s.zarr", tmp_path / "run", tmp_path / "summary.json")
    assert json.loads((tmp_path / "summary.json").read_text())["warnings"] == ["dark", warning]
