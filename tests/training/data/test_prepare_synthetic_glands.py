"""Synthetic glands as training data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sampath_wsi.errors import ConfigError
from sampath_wsi.training.data.prepare.synthetic_glands import prepare_synthetic_glands
from sampath_wsi.training.data.prepared import read_prepared


def test_pictures_depend_on_the_seed_alone_and_labels_are_their_instances(tmp_path: Path) -> None:
    few = read_prepared(prepare_synthetic_glands(tmp_path / "few", images=2, val_images=1, seed=3))
    assert [s.split for s in few.samples] == ["train", "val"]
    for sample in few.samples:
        _, labels = few.read(sample)
        np.testing.assert_array_equal(labels, (few.read_instances(sample) > 0) + 1)
        assert 0.1 < (labels == 2).mean() < 0.9
    more = read_prepared(prepare_synthetic_glands(tmp_path / "more", images=3, val_images=1, seed=3))
    np.testing.assert_array_equal(more.read(more.samples[1])[0], few.read(few.samples[1])[0])


def test_no_training_picture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="2 of 2 pictures"):
        prepare_synthetic_glands(tmp_path / "data", images=2, val_images=2)
    assert not list(tmp_path.iterdir())
