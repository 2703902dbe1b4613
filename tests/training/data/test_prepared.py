"""Prepared data: what is wrong with them is said in one line."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sampath_wsi.classes import TissueClass
from sampath_wsi.errors import DataError
from sampath_wsi.training.augment import AugmentSpec
from sampath_wsi.training.data.prepared import DatasetInfo, read_prepared
from sampath_wsi.training.data.prepared_writer import LabelledImage, write_prepared
from sampath_wsi.training.data.windows import cover, spread
from sampath_wsi.training.tiles import TileDataset, epoch_keys

INFO = DatasetInfo(
    name="two", classes=(TissueClass(name="A", color=(1, 2, 3)), TissueClass(name="B", color=(4, 5, 6))), mpp=0.5
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    images: list[LabelledImage] = []
    for k in range(4):
        image = rng.integers(0, 256, (16, 16, 3), np.uint8)
        label = rng.integers(0, 3, (16, 16), np.uint8)
        images.append(LabelledImage(f"s{k}", image, label, f"g{k // 2}", "train" if k < 3 else "val"))
    write_prepared(tmp_path / "data", INFO, {"all": lambda: images})
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
        "sample s3: the image is 16 x 16 px and the label image 15 x 16 px",
    ),
    "CMYK": (
        lambda f: Image.new("CMYK", (16, 16)).save(f / "images" / "s1.png", "TIFF"),
        r"s1\.png: a picture with the mode CMYK",
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


def test_optional_columns_and_instances_come_back(tmp_path: Path) -> None:
    instances = np.arange(64).reshape(8, 8) * 900
    images: list[LabelledImage] = []
    image, label = np.zeros((8, 8, 3), np.uint8), np.ones((8, 8), np.uint8)
    images.append(LabelledImage("a", image, label, "g", "train", instances=instances, field="roi", x_px=5, y_px=7))
    images.append(LabelledImage("b", image, label, "g", "train"))
    write_prepared(tmp_path / "data", INFO, {"all": lambda: images})
    data = read_prepared(tmp_path / "data")
    a, b = data.samples
    assert (a.field, a.x_px, a.y_px) == ("roi", 5, 7)
    assert (b.field, b.x_px, b.y_px, b.instances) == ("b", 0, 0, "")
    assert data.sizes_px == {"a": (8, 8), "b": (8, 8)}
    np.testing.assert_array_equal(data.read_instances(a), instances)
    with pytest.raises(DataError, match="sample b has no map of instances"):
        data.read_instances(b)
    _edit(tmp_path / "data" / "samples.csv", "roi,5,7", "roi,five,7")
    with pytest.raises(DataError, match=r"samples\.csv: sample a: x_px: Input should be a valid integer"):
        read_prepared(tmp_path / "data")


def test_a_splits_file_takes_the_place_of_the_column(folder: Path, tmp_path: Path) -> None:
    splits = tmp_path / "splits.csv"
    splits.write_text("sample,split\ns0,val\ns3,train\n")
    data = read_prepared(folder, splits)
    assert {s.sample: s.split for s in data.samples} == {"s0": "val", "s3": "train"}
    splits.write_text("sample,split\ns0,val\ns9,train\nt,train\n")
    with pytest.raises(DataError, match="names 2 samples that the data do not have, such as s9"):
        read_prepared(folder, splits)
    splits.write_text("sample,split\ns0,val\ns1,val\ns1,train\n")
    with pytest.raises(DataError, match="line 4: sample s1 occurs twice"):
        read_prepared(folder, splits)
    splits.write_bytes("\ufeffsample,split\ns0,val\n".encode())
    assert [s.sample for s in read_prepared(folder, splits).samples] == ["s0"]
    splits.write_bytes(b"sample,split\n\xff,val\n")
    with pytest.raises(DataError, match="not a text file"):
        read_prepared(folder, splits)
    splits.write_text("name,split\ns0,val\n")
    with pytest.raises(DataError, match="lacks the column sample"):
        read_prepared(folder, splits)
    with pytest.raises(DataError, match=r"none\.csv is missing"):
        read_prepared(folder, tmp_path / "none.csv")


def test_windows_cover_samples_of_any_size(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sizes = {"small": (10, 12), "wide": (16, 50)}
    images: list[LabelledImage] = []
    for name, size in sizes.items():
        images.append(
            LabelledImage(name, rng.integers(0, 200, (*size, 3), np.uint8), np.ones(size, np.uint8), name, "val")
        )
    write_prepared(tmp_path / "data", INFO, {"all": lambda: images})
    data = read_prepared(tmp_path / "data")
    tiles = TileDataset(data, data.samples, 16)
    assert len(tiles) == 1 + 4
    image, label = tiles[(0, 0)]
    assert int(label.sum()) == 120
    assert (image[:, :, 12:] == 1).all()
    whole, _ = data.read(data.samples[1])
    np.testing.assert_array_equal(np.rint(tiles[(0, 2)][0].permute(1, 2, 0).numpy() * 255), whole[:, 12:28])
    cropped = TileDataset(data, data.samples, 16, AugmentSpec(), seed=1)
    assert len(cropped) == 2
    assert cropped[(0, 1)][0].shape == (3, 16, 16)


def test_windows_are_spread_as_the_authors_do() -> None:
    # 3000 px in windows of 1024: n = 3, step floor(1976 / 2) = 988; 3001: the first step is one larger.
    assert spread(3000, 1024) == [0, 988, 1976]
    assert spread(3001, 1024) == [0, 989, 1977]
    assert spread(1024, 1024) == spread(3, 1024) == [0]
    with pytest.raises(ValueError, match="must be positive"):
        spread(0, 5)


@given(st.integers(1, 5000), st.integers(1, 1500))
def test_windows_leave_no_gap(length: int, window: int) -> None:
    starts = spread(length, window)
    assert starts[0] == 0
    assert starts[-1] == max(0, length - window)
    assert all(0 < b - a <= window for a, b in pairwise(starts))
    assert cover(length, window, window) == [(x, 0) for x in starts]


def test_nothing_half_made_is_left_nor_foreign_folders_replaced(tmp_path: Path) -> None:
    image = LabelledImage("s", np.zeros((4, 4, 3), np.uint8), np.zeros((0,), np.uint8), "g", "train")
    with pytest.raises(ValueError, match=r"\w"):
        write_prepared(tmp_path / "data", INFO, {"s": lambda: [image]})
    assert not list(tmp_path.iterdir())
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(DataError, match="something else"):
        write_prepared(tmp_path, INFO, {})


def test_order_depends_on_seed_and_epoch_alone() -> None:
    def keys(epoch: int, seed: int = 1, length: int | None = None) -> list[tuple[int, int]]:
        return epoch_keys(10, seed, epoch, length)

    assert keys(3) == keys(3)
    assert {i for _, i in keys(3)} == set(range(10))
    assert [i for _, i in keys(3)] != [i for _, i in keys(4)]
    assert len(keys(0, 1, 25)) == 25
    assert len(keys(0, 1, 4)) == 4
