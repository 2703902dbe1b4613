"""A stitched segmentation against a true class map: each pixel of the truth once, unlabelled ones not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from sampath_wsi.errors import AnnotationError
from sampath_wsi.stages.evaluate import evaluate
from sampath_wsi.stages.stitch.stage import stitch
from sampath_wsi.stores.store import open_store, read_array
from tests.helpers import make_grid, random_probability, write_probabilities

IGNORED = 255


@pytest.fixture
def segmentation(tmp_path: Path) -> Path:
    """Overlapping tiles at the slide's own resolution, two level-0 pixels a map pixel."""
    grid = make_grid((96, 64), (0.5, 0.5), tile=32, overlap=16, stride=2)
    probability = random_probability(np.random.default_rng(0), len(grid.tiles), 3, grid.tile_map_px)
    path = write_probabilities(tmp_path / "probabilities.zarr", grid, probability)
    stitch(path, tmp_path / "segmentation.ome.zarr")
    return tmp_path / "segmentation.ome.zarr"


def _truth(path: Path, segmentation: Path) -> np.ndarray:
    """The segmentation itself at full size, some of it wrong, some of it not labelled."""
    label = np.asarray(read_array(open_store(segmentation, "segmentation")[0], "labels/classes/0")[:])
    truth = label.repeat(2, 0).repeat(2, 1)[:64, :96].copy()
    truth[:10] = truth[:10] % 3 + 1
    truth[20:50, 30:70] = IGNORED
    tifffile.imwrite(path, truth)
    return truth


def test_ignored_pixels_do_not_count(tmp_path: Path, segmentation: Path) -> None:
    path = tmp_path / "truth.tif"
    truth = _truth(path, segmentation)
    right = truth.copy()
    right[:10] = (truth[:10] + 1) % 3 + 1
    found = evaluate(segmentation, path, ignore=IGNORED)
    counted = truth != IGNORED
    assert found["labelled"] == counted.mean()
    for k in range(3):
        true, predicted = truth[counted] == k + 1, right[counted] == k + 1
        expected = 2 * (true & predicted).sum() / (true.sum() + predicted.sum())
        assert found["classes"][f"class {k}"]["dice"] == pytest.approx(expected)
    assert found["no_tissue"]["dice"] == 0


def test_without_ignore_every_pixel_counts(tmp_path: Path, segmentation: Path) -> None:
    path = tmp_path / "truth.tif"
    truth = _truth(path, segmentation)
    with pytest.raises(AnnotationError, match=r"label 255 occurs, but the model has 3 classes.*--ignore"):
        evaluate(segmentation, path)
    tifffile.imwrite(path, np.where(truth == IGNORED, 0, truth).astype(np.uint8))
    found = evaluate(segmentation, path)
    assert "labelled" not in found
    assert found["no_tissue"]["recall"] == 0
    assert evaluate(segmentation, path, ignore=0)["labelled"] == (truth != IGNORED).mean()


def test_a_truth_that_is_ignored_whole_is_refused(tmp_path: Path, segmentation: Path) -> None:
    path = tmp_path / "truth.tif"
    tifffile.imwrite(path, np.full((64, 96), IGNORED, np.uint8))
    with pytest.raises(AnnotationError, match="every pixel has the ignored value 255"):
        evaluate(segmentation, path, ignore=IGNORED)
