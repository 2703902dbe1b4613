"""Synthetic slides and glands as training data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sampath_wsi.errors import ConfigError
from sampath_wsi.options import SyntheticGlandOptions, SyntheticOptions
from sampath_wsi.synthetic.glands import GlandPainter
from sampath_wsi.training.data.prepare.synthetic import prepare_synthetic, prepare_synthetic_glands
from sampath_wsi.training.data.prepared import read_prepared


def test_synthetic_tiles_are_split_by_slide_and_match_labels(tmp_path: Path) -> None:
    options = SyntheticOptions(train_slides=1, val_slides=1, tiles_per_slide=2, tile_px=128, seed=4)
    prepare_synthetic(tmp_path / "data", options)
    data = read_prepared(tmp_path / "data")
    assert data.info.mpp == 0.5
    assert [s.split for s in data.samples] == ["train", "train", "val", "val"]
    assert {s.group for s in data.split("train")}.isdisjoint(s.group for s in data.split("val"))
    for sample in data.samples:
        image, label = data.read(sample)
        assert image.shape == (128, 128, 3)
        assert (label > 0).mean() > 0.2
        if (label == 0).any():
            assert image[label == 0].mean() > image[label > 0].mean() + 20
    with pytest.raises(ConfigError, match=r"mpp: 0\.3 cannot be used: input should be a multiple of 0\.25"):
        SyntheticOptions.of({"mpp": 0.3}, "options")


def test_pictures_of_glands_depend_on_the_seed_alone(tmp_path: Path) -> None:
    few = read_prepared(
        prepare_synthetic_glands(tmp_path / "few", SyntheticGlandOptions(images=2, val_images=1, seed=3)).folder
    )
    assert [s.split for s in few.samples] == ["train", "val"]
    for sample in few.samples:
        _, labels = few.read(sample)
        np.testing.assert_array_equal(labels, (few.read_instances(sample) > 0) + 1)
        assert 0.1 < (labels == 2).mean() < 0.9
    np.testing.assert_array_equal(few.read(few.samples[1])[0], GlandPainter(seed=3).paint(1).rgb)


def test_no_training_picture_is_refused() -> None:
    with pytest.raises(ConfigError, match="2 of 2 pictures"):
        SyntheticGlandOptions.of({"images": 2, "val_images": 2}, "options")
