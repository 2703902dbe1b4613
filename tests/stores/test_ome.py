"""The OME-Zarr metadata, judged by the validator of the OME community."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from ome_zarr_models.v05.image import Image
from ome_zarr_models.v05.image_label import ImageLabel
from ome_zarr_models.v05.labels import Labels

from sampath_wsi.stages.stitch.stage import stitch
from tests.helpers import make_grid, random_probability, write_probabilities


@pytest.fixture
def segmentation(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    grid = make_grid((5000, 4300), (0.25, 0.3), tile=512, overlap=64, region=(400, 200, 4000, 4000))
    probability = random_probability(rng, len(grid.tiles), 3, grid.tile_map_px)
    path = write_probabilities(tmp_path / "probabilities.zarr", grid, probability)
    stitch(path, tmp_path / "segmentation.ome.zarr")
    return tmp_path / "segmentation.ome.zarr"


def test_image_and_labels_are_valid_ome_zarr(segmentation: Path) -> None:
    root = zarr.open_group(segmentation, mode="r")
    image = Image.from_zarr(root)
    assert image.ome_attributes.version == "0.5"
    labels = root["labels"]
    assert isinstance(labels, zarr.Group)
    assert Labels.from_zarr(labels).ome_attributes.labels == ["classes"]
    classes = labels["classes"]
    assert isinstance(classes, zarr.Group)
    properties = ImageLabel.from_zarr(classes).ome_attributes.image_label.properties
    assert properties is not None
    assert [entry.label_value for entry in properties] == [1, 2, 3]


def test_levels_lie_on_the_slide_in_micrometres(segmentation: Path) -> None:
    """The corner of every level is the corner of the region, whatever the level's pixel size."""
    root = zarr.open_group(segmentation, mode="r")
    multiscale = root.attrs["ome"]["multiscales"][0]  # type: ignore[index, call-overload]
    for dataset in multiscale["datasets"]:  # type: ignore[index, call-overload, union-attr]
        scale, place = (step[step["type"]] for step in dataset["coordinateTransformations"])  # type: ignore[index, call-overload]
        corner_y, corner_x = place[1] - scale[1] / 2, place[2] - scale[2] / 2
        assert corner_y == pytest.approx(200 * 0.3 - 0.15)
        assert corner_x == pytest.approx(400 * 0.25 - 0.125)
    assert len(multiscale["datasets"]) == sum(1 for key in root if key.isdigit())  # type: ignore[arg-type, index, call-overload]
