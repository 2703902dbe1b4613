"""Fields put together from tiles, and predicted window by window."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sampath_wsi.classes import TissueClass
from sampath_wsi.errors import ConfigError, DataError
from sampath_wsi.model.card import ModelSpec
from sampath_wsi.model.sampath import predict_labels, upsample_logits
from sampath_wsi.training.data.prepared import DatasetInfo, PreparedData, read_prepared
from sampath_wsi.training.data.prepared_writer import LabelledImage, write_prepared
from sampath_wsi.training.scoring.fields import (
    SYMMETRIES,
    FieldPredictor,
    fields_of,
    read_field,
    read_field_instances,
    upsampled_labels,
)
from tests.helpers import CLASSES, ColourModel

STRIDE = 4
INFO = DatasetInfo(
    name="two", classes=(TissueClass(name="A", color=(1, 2, 3)), TissueClass(name="B", color=(4, 5, 6))), mpp=0.5
)
RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (30, 50, 3), np.uint8)
LABELS = RNG.integers(0, 3, (30, 50), np.uint8)
INSTANCES = RNG.integers(0, 900, (30, 50), np.uint16)


def _prepared(folder: Path, corners: list[tuple[int, int]], size: int = 20, group: str = "g") -> PreparedData:
    """Tiles of one field that is 7, 5 px away from its origin, the last one of another group if so wanted."""
    images: list[LabelledImage] = []
    for k, (x, y) in enumerate(corners):
        part = np.s_[y : y + size, x : x + size]
        owner = "g" if k < len(corners) - 1 else group
        parts = IMAGE[part], LABELS[part], owner, "test", INSTANCES[part]
        images.append(LabelledImage(f"t{k}", *parts, field="f", x_px=x + 7, y_px=y + 5))
    write_prepared(folder, INFO, {"all": lambda: images})
    return read_prepared(folder)


def test_overlapping_tiles_are_joined(tmp_path: Path) -> None:
    data = _prepared(tmp_path / "d", [(0, 0), (15, 0), (30, 0), (0, 10), (15, 10), (30, 10)])
    (field,) = fields_of(data.split("test"))
    image, labels = read_field(data, field)
    np.testing.assert_array_equal(image, IMAGE)
    np.testing.assert_array_equal(labels, LABELS)
    np.testing.assert_array_equal(read_field_instances(data, field), INSTANCES)


def test_between_tiles_there_is_nothing(tmp_path: Path) -> None:
    data = _prepared(tmp_path / "d", [(30, 10), (0, 0)])
    image, labels = read_field(data, fields_of(data.samples)[0])
    assert labels.shape == (30, 50)
    assert (image[:10, 20:] == 255).all()
    assert not labels[:10, 20:].any()
    np.testing.assert_array_equal(labels[10:, 30:], LABELS[10:, 30:])


def test_tiles_that_disagree_are_named(tmp_path: Path) -> None:
    data = _prepared(tmp_path / "d", [(0, 0), (15, 0)])
    (field,) = fields_of(data.samples)
    csv = (data.folder / "samples.csv").read_text()
    (data.folder / "samples.csv").write_text(csv.replace(",22,5", ",21,5"))
    data = read_prepared(data.folder)
    with pytest.raises(DataError, match="field f: sample t1 disagrees"):
        read_field(data, fields_of(data.samples)[0])
    with pytest.raises(DataError, match="field f: sample t1 disagrees"):
        read_field_instances(data, fields_of(data.samples)[0])
    other = _prepared(tmp_path / "e", [(0, 0), (15, 0)], group="h")
    with pytest.raises(DataError, match="field f: sample t0 belongs to the group g and t1 to h"):
        fields_of(other.samples)
    assert field.samples[1].x_px == 22


def _colour_model(stride: int = STRIDE) -> ColourModel:
    return ColourModel(ModelSpec("colour", "f" * 64, CLASSES, 0.5, 32, stride))


@settings(max_examples=60)
@given(st.integers(1, 90), st.integers(1, 90), st.sampled_from([1, 4, 8]), st.integers(1, 5), st.integers(0, 9))
def test_windows_give_what_one_image_gives(height: int, width: int, tta: int, batch: int, seed: int) -> None:
    """For a model whose output depends on the place alone; near ties rounding decides."""
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    whole, windows = (
        FieldPredictor(_colour_model(), 3, 96, STRIDE),
        FieldPredictor(_colour_model(), 3, 32, STRIDE, batch, tta),
    )
    expected, found = whole.map_of(image), windows.map_of(image)
    assert found.shape == (3, -(-height // STRIDE), -(-width // STRIDE))
    np.testing.assert_allclose(found, expected, atol=1e-3)
    clear = np.diff(np.sort(_at_full_size(expected, (height, width)), axis=0)[-2:], axis=0)[0] > 0.01
    labels = windows(image)
    assert labels.shape == (height, width)
    assert labels.min() >= 1
    np.testing.assert_array_equal(labels[clear], whole(image)[clear])


def _at_full_size(probability: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """torch's resizing, without what is beyond the image."""
    size = probability.shape[1] * STRIDE, probability.shape[2] * STRIDE
    return upsample_logits(torch.from_numpy(probability)[None], size)[0, :, : shape[0], : shape[1]].numpy()


def test_labels_are_those_of_torchs_resizing() -> None:
    probability = np.random.default_rng(3).random((3, 75, 9), np.float32)
    expected = predict_labels(
        torch.cat([torch.zeros(1, 1, 300, 36), torch.from_numpy(_at_full_size(probability, (300, 36)))[None]], 1)
    )
    found = upsampled_labels(probability, (300, 36), STRIDE)
    assert (found == expected[0].numpy()).mean() > 0.9999


def test_every_window_is_seen_and_the_whole_batch_at_once() -> None:
    model = _colour_model()
    predictor = FieldPredictor(model, 3, 32, STRIDE, batch=4)
    predictor(np.zeros((33, 65, 3), np.uint8))
    assert model.calls == [4, 2]
    assert predictor.model_seconds > 0


@pytest.mark.parametrize("tta", SYMMETRIES)
def test_symmetric_versions_are_averaged(tta: int) -> None:
    """A model that sees a wedge in the corner of whatever it is shown; turned back, the wedge is in each corner."""
    size = 8

    def wedge(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        y, x = np.mgrid[:size, :size]
        first = np.where((y < 3) & (x <= y), 240, 0).astype(np.uint8)
        return np.repeat(np.stack([first, 255 - first])[None], len(rgb), 0), np.zeros((len(rgb), 2), np.float32)

    found = FieldPredictor(wedge, 2, size, 1, 1, tta).map_of(np.zeros((size, size, 3), np.uint8))
    one = wedge(np.zeros((1, 1, 1, 3)))[0][0].astype(float)
    versions = [one, one[:, ::-1], one[:, :, ::-1], one[:, ::-1, ::-1]]
    versions += [version.swapaxes(1, 2) for version in versions]
    np.testing.assert_allclose(found, np.mean(versions[:tta], axis=0), atol=1e-3)


def test_windows_blend_over_the_widest_of_their_overlaps() -> None:
    """Windows of 8 px at 0, 6 and 11: they overlap by 2 and by 3, and all weights rise over 3."""
    shown = iter((0, 0, 240))

    def constant(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.full((1, 1, 8, 8), next(shown), np.uint8), np.zeros((1, 1), np.float32)

    line = FieldPredictor(constant, 1, 8, 1).map_of(np.zeros((8, 19, 3), np.uint8))[0, 0]
    np.testing.assert_allclose(line[10:15], (0, 40, 120, 200, 240), rtol=1e-5)


def test_other_numbers_of_versions_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"tta: 3\. Use one of 1, 4, 8"):
        FieldPredictor(_colour_model(), 3, 32, STRIDE, tta=3)
