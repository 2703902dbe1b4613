"""Prepared data: what is wrong with them is said in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sampath_wsi.classes import TissueClass
from sampath_wsi.errors import ConfigError, DataError
from sampath_wsi.train.dataset import EpochSampler, TileDataset
from sampath_wsi.train.prepare_synthetic import prepare_synthetic
from sampath_wsi.train.prepared import DatasetInfo, read_prepared
from sampath_wsi.train.prepared_writer import PreparedWriter

INFO = DatasetInfo(
    name="two", classes=(TissueClass(name="A", color=(1, 2, 3)), TissueClass(name="B", color=(4, 5, 6))), mpp=0.5
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    with PreparedWriter(tmp_path / "data", INFO) as writer:
        for k in range(4):
            image = rng.integers(0, 256, (16, 16, 3), np.uint8)
            label = rng.integers(0, 3, (16, 16), np.uint8)
            writer.add(f"s{k}", image, label, f"g{k // 2}", "train" if k < 3 else "val")
    return tmp_path / "data"


def test_what_is_written_is_read(folder: Path) -> None:
    data = read_prepared(folder)
    assert data.info == INFO
    assert [s.sample for s in data.split("train")] == ["s0", "s1", "s2"]
    image, label = data.read(data.samples[0])
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(image, rng.integers(0, 256, (16, 16, 3), np.uint8))
    np.testing.assert_array_equal(label, rng.integers(0, 3, (16, 16), np.uint8))


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def _save(array: np.ndarray, path: Path) -> None:
    Image.fromarray(array).save(path)


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no dataset.json": (lambda f: (f / "dataset.json").unlink(), r"dataset\.json is missing"),
    "broken dataset.json": (lambda f: (f / "dataset.json").write_text("{"), r"dataset\.json does not describe"),
    "no mpp": (lambda f: _edit(f / "dataset.json", '"mpp": 0.5', '"mmp": 0.5'), r"mpp: Field required"),
    "no samples.csv": (lambda f: (f / "samples.csv").unlink(), r"samples\.csv is missing"),
    "no column": (lambda f: _edit(f / "samples.csv", "group", "slide"), "lacks the column group"),
    "no sample": (lambda f: (f / "samples.csv").write_text("sample,image,label,group,split\n"), "lists no sample"),
    "twice": (lambda f: _edit(f / "samples.csv", "s1,", "s0,"), "sample s0 occurs twice"),
    "no image": (lambda f: (f / "images" / "s2.png").unlink(), r"sample s2: .*s2\.png is missing"),
    "no label": (lambda f: (f / "labels" / "s2.png").unlink(), r"sample s2: .*s2\.png is missing"),
    "not an image": (lambda f: (f / "images" / "s1.png").write_text("x"), r"s1\.png is not an image"),
    "sizes": (
        lambda f: _save(np.zeros((16, 15), np.uint8), f / "labels" / "s3.png"),
        "sample s3: the image is 16 x 16 px and the label map 15 x 16 px",
    ),
    "mode": (lambda f: _save(np.zeros((16, 16, 3), np.uint8), f / "labels" / "s0.png"), "has the mode RGB"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_data_are_named(folder: Path, name: str) -> None:
    spoil, message = BAD[name]
    spoil(folder)
    with pytest.raises(DataError, match=message) as caught:
        read_prepared(folder)
    assert "\n" not in str(caught.value)


def test_unknown_label_truncated_image_and_split_are_named(folder: Path) -> None:
    _save(np.full((16, 16), 3, np.uint8), folder / "labels" / "s0.png")
    content = (folder / "images" / "s1.png").read_bytes()
    (folder / "images" / "s1.png").write_bytes(content[: len(content) // 2])
    data = read_prepared(folder)
    with pytest.raises(DataError, match="label 3 is unknown, two has the classes 1 to 2"):
        data.read(data.samples[0])
    with pytest.raises(DataError, match="sample s1 cannot be read"):
        data.read(data.samples[1])
    with pytest.raises(DataError, match="no sample of the split 'test'"):
        data.split("test")
    with pytest.raises(DataError, match="sample s2 is 16 x 16 px, the recipe's tiles have 32 px"):
        TileDataset(data, data.samples, size_px=32)[(0, 2)]


def test_writer_leaves_nothing_half_made_and_no_foreign_folder_is_replaced(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\w"), PreparedWriter(tmp_path / "data", INFO) as writer:
        writer.add("s", np.zeros((4, 4, 3), np.uint8), np.zeros((0,), np.uint8), "g", "train")
    assert not list(tmp_path.iterdir())
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(DataError, match="something else"):
        PreparedWriter(tmp_path, INFO)


def test_order_depends_on_seed_and_epoch_alone() -> None:
    def keys(epoch: int, seed: int | None = 1, length: int | None = None) -> list[tuple[int, int]]:
        sampler = EpochSampler(10, seed, length)
        sampler.set_epoch(epoch)
        assert len(list(sampler)) == len(sampler)
        return list(sampler)

    assert keys(3) == keys(3)
    assert {i for _, i in keys(3)} == set(range(10))
    assert [i for _, i in keys(3)] != [i for _, i in keys(4)]
    assert [i for _, i in keys(0, None)] == list(range(10))
    assert len(keys(0, 1, 25)) == 25
    assert len(keys(0, 1, 4)) == 4


def test_synthetic_tiles_are_split_by_slide_and_match_their_labels(tmp_path: Path) -> None:
    prepare_synthetic(tmp_path / "data", train_slides=1, val_slides=1, tiles_per_slide=2, tile_px=128, seed=4)
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
    with pytest.raises(ConfigError, match=r"at 0\.3 um/px cannot be made"):
        prepare_synthetic(tmp_path / "other", mpp=0.3)
