"""BCSS, CRAG and GlaS: what is prepared, and what is said of bad input."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sampath_wsi.errors import DataError
from sampath_wsi.training.data.pictures import read_codes
from sampath_wsi.training.data.prepare.label_map import load_label_map
from sampath_wsi.training.data.prepare.masks import prepare_masks, true_mpp
from sampath_wsi.training.data.prepared import read_prepared
from sampath_wsi.training.data.windows import cover

from .prepare_helpers import glas_as_crag, glas_rows, make_bcss, make_crag, make_glas_archive, save, some_glas

GLAS = ("train_1", "testA_12")


@pytest.fixture(scope="module")
def bcss(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bcss(tmp_path_factory.mktemp("bcss"))


def test_bcss_tiles_are_those_of_the_authors(bcss: Path, tmp_path: Path) -> None:
    summary = prepare_masks("bcss", bcss, tmp_path / "out", tile_px=32)
    data = read_prepared(tmp_path / "out")
    assert data.info.classes == load_label_map("bcss").tissue_classes
    # 100 px need 4 windows of 32: steps of 22, 23, 23 with the remainder first; 70 px need 3: 19, 19.
    corners = {(s.x_px, s.y_px) for s in data.samples}
    assert corners == {(x, y) for x in (0, 23, 46, 68) for y in (0, 19, 38)}
    assert {s.group: s.split for s in data.samples} == {
        "TCGA-A1-A0SK": "train",
        "TCGA-A2-A04P": "train",
        "TCGA-E2-A14N": "test",
        "TCGA-S3-AA10": "test",
    }
    assert {s.field for s in data.samples} == {path.stem for path in (bcss / "images").iterdir()}
    assert summary.samples == {"train": 24, "test": 24}
    assert str(summary).startswith("48 samples of 4 groups")
    label_map = load_label_map("bcss")
    for sample in data.samples[::7]:
        image, labels = data.read(sample)
        part = slice(sample.y_px, sample.y_px + 32), slice(sample.x_px, sample.x_px + 32)
        np.testing.assert_array_equal(image, np.asarray(Image.open(bcss / "images" / f"{sample.field}.png"))[part])
        mask = read_codes(bcss / "masks" / f"{sample.field}.png")[part]
        np.testing.assert_array_equal(labels, label_map.encode(mask, bcss))


@pytest.mark.parametrize(
    ("size", "columns", "rows"),
    [
        ((3394, 2467), (0, 790, 1580, 2370), (0, 722, 1443)),
        ((4838, 3426), (0, 954, 1908, 2861, 3814), (0, 801, 1602, 2402)),
        ((7360, 6813), (0, 906, 1811, 2716, 3621, 4526, 5431, 6336), (0, 965, 1930, 2895, 3860, 4825, 5789)),
    ],
)
def test_tiles_of_real_regions_lie_where_the_folds_say(
    size: tuple[int, int], columns: tuple[int, ...], rows: tuple[int, ...]
) -> None:
    assert cover(*size, 1024) == [(x, y) for y in rows for x in columns]


def test_tiles_without_a_label_stay_with_their_region(bcss: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(bcss, source)
    mask = np.full((70, 100), 3, np.uint8)
    mask[:, :64] = 0
    save(mask, _mask(source))
    summary = prepare_masks("bcss", source, tmp_path / "out", tile_px=32)
    assert sum(summary.samples.values()) == 48
    assert "6 tiles have no label (the images that they were cut from have)" in summary.warnings
    names = {s.sample for s in read_prepared(tmp_path / "out").samples}
    assert f"{_mask(source).stem}_19_23" in names


def test_bcss_default_tiles_whole_regions_resolution_and_counts(bcss: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    summary = prepare_masks("bcss", bcss, tmp_path / "out", progress=lambda done, total, _: seen.append((done, total)))
    data = read_prepared(tmp_path / "out")
    assert data.info.mpp == 0.3
    assert "tiles of 1024 px" in data.info.description
    assert [s.sample for s in data.samples] == [f"{s.field}_0_0" for s in data.samples]
    assert seen == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]
    assert summary.warnings == (
        "images named MPP-0.2500 have in truth 0.30 um/px (docs/data.md), which is recorded",
        "BCSS has 106 images in train, here are 2",
        "BCSS has 45 images in test, here are 2",
    )
    prepare_masks("bcss", bcss, tmp_path / "out", tile_px=0, mpp=0.29)
    data = read_prepared(tmp_path / "out")
    assert data.info.mpp == 0.29
    assert [s.sample for s in data.samples] == [s.field for s in data.samples]


@pytest.mark.parametrize(("named", "true"), [(0.25, 0.3), (0.5, 0.5), (0.23, 0.2), (1.0, 1.0)])
def test_true_resolution_of_the_downloader(named: float, true: float) -> None:
    assert true_mpp(named) == true


def test_bcss_of_several_resolutions_or_none(tmp_path: Path) -> None:
    source = make_bcss(tmp_path / "bcss", mpp="0.5000")
    assert not [w for w in prepare_masks("bcss", source, tmp_path / "out").warnings if "MPP" in w]
    for folder in ("images", "masks"):
        path = sorted((source / folder).iterdir())[0]
        path.rename(path.with_name(path.name.replace("0.5000", "0.2500")))
    with pytest.raises(DataError, match="Prepare each resolution by itself"):
        prepare_masks("bcss", source, tmp_path / "out")
    for folder in ("images", "masks"):
        for path in list((source / folder).iterdir()):
            path.rename(path.with_name(path.name.split("_MPP")[0] + ".png"))
    assert "say no MPP" in prepare_masks("bcss", source, tmp_path / "out").warnings[0]


def _mask(folder: Path, k: int = 0) -> Path:
    return sorted((folder / "masks").iterdir())[k]


def _truncate(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _unlabel(folder: Path) -> None:
    for k in range(4):
        save(np.zeros((70, 100), np.uint8), _mask(folder, k))


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, r"there is no such folder.*github\.com/PathologyDataScience/BCSS.*images/ and masks/"),
    "no masks": (lambda f: shutil.rmtree(f / "masks"), "masks: there is no such folder"),
    "no image": (lambda f: [p.unlink() for p in (f / "images").iterdir()], "images: holds no image"),
    "two masks missing": (
        lambda f: [_mask(f).unlink(), _mask(f).unlink()],
        r"masks/TCGA-A1-A0SK-DX1\S+\.png is missing \(and 1 more of 4 files\)",
    ),
    "an image missing": (
        lambda f: sorted((f / "images").iterdir())[3].unlink(),
        r"images/TCGA-S3\S+\.png is missing\.",
    ),
    "a name": (
        lambda f: [p.rename(p.with_name("x.png")) for p in (_mask(f), sorted((f / "images").iterdir())[0])],
        r"x\.png: its name does not begin with a TCGA barcode",
    ),
    "two names": (lambda f: shutil.copy(_mask(f), _mask(f).with_suffix(".bmp")), "have one name"),
    "sizes": (
        lambda f: save(np.ones((70, 99), np.uint8), _mask(f, 1)),
        r"masks/TCGA-A2\S+: the mask is 99 x 70 px, its image 100 x 70 px",
    ),
    "a code": (
        lambda f: save(np.full((70, 100), 77, np.uint8), _mask(f, 1)),
        r"masks/TCGA-A2\S+: the code 77 is unknown",
    ),
    "a damaged mask": (lambda f: _truncate(_mask(f, 2)), r"masks/TCGA-E2\S+: cannot be read"),
    "no picture": (lambda f: _mask(f, 2).write_text("x"), r"masks/TCGA-E2\S+: cannot be read"),
    "a damaged image": (lambda f: _truncate(sorted((f / "images").iterdir())[0]), r"images/TCGA-A1\S+: cannot be read"),
    "colours": (
        lambda f: save(np.zeros((70, 100, 3), np.uint8), _mask(f)),
        r"masks/TCGA-A1\S+: a mask with the mode RGB",
    ),
    "no label at all": (_unlabel, r"no image has a label \(4 without one\)"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_bcss_is_named_and_nothing_is_left(bcss: Path, tmp_path: Path, name: str) -> None:
    source = tmp_path / "source"
    shutil.copytree(bcss, source)
    spoil, message = BAD[name]
    spoil(source)
    with pytest.raises(DataError, match=message) as caught:
        prepare_masks("bcss", source, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir() if path != source] == []


def test_unlabelled_images_and_absent_classes_are_named(bcss: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(bcss, source)
    save(np.zeros((70, 100), np.uint8), _mask(source))
    for k in (1, 2, 3):
        save(np.full((70, 100), 2, np.uint8), _mask(source, k))
    summary = prepare_masks("bcss", source, tmp_path / "out")
    assert summary.samples == {"train": 1, "test": 2}
    assert f"1 images without a label left out, the first is {_mask(source).stem}" in summary.warnings
    assert summary.warnings[-1].startswith("no pixel is labelled Tumor, Inflammatory, Necrosis, Other")


def test_images_beyond_the_limit_of_pillow(bcss: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert read_codes(_mask(bcss)).shape == (70, 100)
    assert Image.MAX_IMAGE_PIXELS == 100


@pytest.mark.parametrize("test", ["valid", "test"])
def test_crag_archive(tmp_path: Path, test: str) -> None:
    source = make_crag(tmp_path / "crag", test)
    save(np.zeros((5, 5), np.uint8), source / test / "Annotation" / "extra.png")
    summary = prepare_masks("crag", source, tmp_path / "out")
    data = read_prepared(tmp_path / "out")
    assert data.info.mpp == 0.5
    assert {s.sample: (s.split, s.group) for s in data.samples} == {
        "train_0": ("train", "train_0"),
        "train_1": ("train", "train_1"),
        f"{test}_0": ("test", f"{test}_0"),
    }
    assert summary.warnings[0].startswith("1 masks without an image left out")
    for sample in data.samples:
        codes = read_codes(source / sample.sample.split("_")[0] / "Annotation" / f"{sample.sample}.png")
        np.testing.assert_array_equal(data.read(sample)[1], np.where(codes > 0, 2, 1))
        stored = np.asarray(Image.open(data.folder / sample.instances))
        assert stored.dtype == np.uint16
        np.testing.assert_array_equal(stored, codes)


def test_bad_crag_is_named(tmp_path: Path) -> None:
    source = make_crag(tmp_path / "crag")
    (source / "valid" / "Annotation" / "valid_0.png").unlink()
    save(np.ones((5, 5), np.uint8), source / "valid" / "Annotation" / "other.png")
    with pytest.raises(DataError, match=r"valid_0\.png is missing"):
        prepare_masks("crag", source, tmp_path / "out")
    shutil.copy(source / "train" / "Images" / "train_0.png", source / "valid" / "Images" / "train_0.png")
    shutil.copy(source / "train" / "Annotation" / "train_0.png", source / "valid" / "Annotation" / "train_0.png")
    (source / "valid" / "Images" / "valid_0.png").unlink()
    with pytest.raises(DataError, match=r"valid/Images/train_0\.png has the name of \S+train/Images/train_0\.png"):
        prepare_masks("crag", source, tmp_path / "out")
    shutil.rmtree(source / "valid")
    with pytest.raises(DataError, match=r"not both train/ and valid/\. Download CRAG \(https://warwick\S+mildnet\)"):
        prepare_masks("crag", source, tmp_path / "out")


def test_glas_archive(tmp_path: Path) -> None:
    source = make_glas_archive(tmp_path / "glas")
    prepare_masks("glas", source, tmp_path / "out")
    data = read_prepared(tmp_path / "out")
    assert {s.sample: (s.split, s.group) for s in data.samples} == {
        "train_1": ("train", "patient3"),
        "testA_1": ("testA", "patient4"),
        "testB_1": ("testB", "patient5"),
    }
    codes = read_codes(source / "testB_1_anno.bmp")
    np.testing.assert_array_equal(data.read(data.split("testB")[0])[1], np.where(codes > 0, 2, 1))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,grade\ntrain_1,benign\n", "lacks the column patient ID"),
        ("name,patient ID\n", "lists no sample"),
        ("", "lacks the column name"),
        ("name,patient ID\ntrain_1,1\ntrain_1,1\n", "line 3: name train_1 occurs twice"),
        ("name,patient ID\ntrain_1\n", "row of 'train_1': the column patient ID is empty"),
        ("name,patient ID\ntrain_1,1\ntrain_7,1\n", r"train_7\.bmp is missing \(and 1 more of 4 files\)"),
        (None, r"Grade\.csv is missing.*glascontest"),
    ],
)
def test_bad_glas_is_named(tmp_path: Path, text: str | None, message: str) -> None:
    source = make_glas_archive(tmp_path / "glas")
    (source / "Grade.csv").unlink()
    if text is not None:
        (source / "Grade.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        prepare_masks("glas", source, tmp_path / "out")


def test_real_glas_as_it_lies_here_and_as_crag(shared_data: Path, tmp_path: Path) -> None:
    glas = shared_data / "glas"
    prepare_masks("glas", some_glas(glas, tmp_path / "glas", GLAS), tmp_path / "as_glas")
    prepare_masks("crag", glas_as_crag(glas, tmp_path / "crag", GLAS), tmp_path / "as_crag", mpp=0.62)
    as_glas, as_crag = read_prepared(tmp_path / "as_glas"), read_prepared(tmp_path / "as_crag")
    assert {s.sample: s.split for s in as_crag.samples} == {"train_1": "train", "testA_12": "test"}
    rows = glas_rows(glas)
    for sample in as_glas.samples:
        assert (sample.split, sample.group) == (
            rows[sample.sample]["split"],
            f"patient{rows[sample.sample]['patient']}",
        )
        twin = next(s for s in as_crag.samples if s.sample == sample.sample)
        for one, other in zip(as_glas.read(sample), as_crag.read(twin), strict=True):
            np.testing.assert_array_equal(one, other)
        image, labels = as_glas.read(sample)
        # Glands are darker than what lies between them on the whole, and fill a good part of each image.
        assert 0.1 < (labels == 2).mean() < 0.95
        assert image.shape[:2] == labels.shape
