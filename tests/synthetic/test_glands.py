"""Synthetic glands, and the stand-ins of data sets that hold them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from sampath_wsi.errors import ConfigError
from sampath_wsi.synthetic.glands import GlandPainter
from sampath_wsi.synthetic.stand_ins import make_raw
from sampath_wsi.training.data.prepare.masks import prepare_masks
from sampath_wsi.training.data.prepared import read_prepared

PAINTER = GlandPainter(seed=4)
PICTURES = [PAINTER.paint(number, 300, 220) for number in range(6)]


def test_a_picture_depends_on_seed_and_number_alone() -> None:
    again = GlandPainter(seed=4).paint(3, 300, 220)
    np.testing.assert_array_equal(again.rgb, PICTURES[3].rgb)
    np.testing.assert_array_equal(again.instances, PICTURES[3].instances)
    other = GlandPainter(seed=5).paint(3, 300, 220)
    assert (other.rgb != again.rgb).mean() > 0.5


def test_instances_are_numbered_connected_and_large_enough() -> None:
    for picture in PICTURES:
        assert picture.rgb.shape == (220, 300, 3)
        assert picture.instances.dtype == np.uint16
        numbers, areas = np.unique(picture.instances, return_counts=True)
        np.testing.assert_array_equal(numbers, np.arange(len(numbers)) + numbers[0])
        assert areas[numbers > 0].min() * 0.62**2 >= 150
        for number in numbers[numbers > 0]:
            assert ndimage.label(picture.instances == number)[1] == 1


def test_glands_are_told_by_structure_not_by_colour_alone() -> None:
    inside = np.concatenate([p.rgb[p.instances > 0] for p in PICTURES]).astype(float)
    outside = np.concatenate([p.rgb[p.instances == 0] for p in PICTURES]).astype(float)
    assert 0.2 < len(inside) / (len(inside) + len(outside)) < 0.8
    # Both sides have nuclei, ground and empty places: each spreads further than the means differ.
    assert np.abs(inside.mean(0) - outside.mean(0)).max() < min(inside.std(0).min(), outside.std(0).min())
    for pixels in (inside, outside):
        assert pixels.mean(1).min() < 90
        assert pixels.mean(1).max() > 230


def test_the_same_glands_at_half_the_resolution_are_as_large() -> None:
    def median_um2(mpp: float, side: int) -> float:
        painter = GlandPainter(mpp, seed=1)
        pictures = [painter.paint(n, side, side).instances for n in range(4)]
        areas = np.concatenate([np.bincount(p.ravel())[1:] for p in pictures])
        return float(np.median(areas)) * mpp**2

    assert 0.4 < median_um2(1.24, 160) / median_um2(0.62, 320) < 2.5


def test_stand_in_of_bcss_has_its_downloaders_layout(tmp_path: Path) -> None:
    make_raw("bcss", tmp_path / "raw", images=4, size_px=128)
    images = sorted(p.name for p in (tmp_path / "raw" / "images").iterdir())
    assert images == sorted(p.name for p in (tmp_path / "raw" / "masks").iterdir())
    assert all(name.startswith("TCGA-") and name.endswith("_MPP-0.2500.png") for name in images)
    codes = {int(c) for p in (tmp_path / "raw" / "masks").iterdir() for c in np.unique(np.asarray(Image.open(p)))}
    assert {1, 2} <= codes <= {0, 1, 2, 3, 4, 6}
    prepare_masks("bcss", tmp_path / "raw", tmp_path / "data", tile_px=64)
    data = read_prepared(tmp_path / "data")
    assert data.info.mpp == pytest.approx(0.30)
    assert len({s.group for s in data.split("train")}) == 3
    assert len({s.field for s in data.split("test")}) == 1


def test_stand_in_of_crag_has_the_layout_of_the_archive(tmp_path: Path) -> None:
    make_raw("crag", tmp_path / "raw", images=4, size_px=128)
    prepare_masks("crag", tmp_path / "raw", tmp_path / "data")
    data = read_prepared(tmp_path / "data")
    assert [len(data.split(name)) for name in ("train", "test")] == [3, 1]
    sample = data.samples[0]
    np.testing.assert_array_equal(data.read(sample)[1] == 2, data.read_instances(sample) > 0)


def test_stand_in_of_glas_shares_patients_over_its_splits(tmp_path: Path) -> None:
    make_raw("glas", tmp_path / "raw", images=8, size_px=96)
    with (tmp_path / "raw" / "samples.csv").open(newline="") as file:
        assert {row["grade"] for row in csv.DictReader(file)} <= {"benign", "malignant"}
    prepare_masks("glas", tmp_path / "raw", tmp_path / "data")
    data = read_prepared(tmp_path / "data")
    assert {s.group for s in data.split("train")} & {s.group for s in data.split("testA")}


def test_nothing_is_overwritten_and_nonsense_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    with pytest.raises(ConfigError, match="is there already"):
        make_raw("glas", tmp_path / "mine")
    with pytest.raises(ConfigError, match="no stand-in for 'mnist'"):
        make_raw("mnist", tmp_path / "new")
    with pytest.raises(ConfigError, match="too few"):
        make_raw("glas", tmp_path / "new", images=3)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "mine"]
