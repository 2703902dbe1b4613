"""Splits: whole groups, everything once, the same for the same seed, and what is wrong is said in one line."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampath_wsi.classes import TissueClass
from sampath_wsi.errors import ConfigError, DataError
from sampath_wsi.options import SplitOptions
from sampath_wsi.training.data.authors_folds import load_folds, split_as_authors
from sampath_wsi.training.data.leakage import leakage_of
from sampath_wsi.training.data.prepared import DatasetInfo, PreparedData, Sample, read_prepared
from sampath_wsi.training.data.prepared_writer import LabelledImage, write_prepared
from sampath_wsi.training.data.splits import (
    deal_groups,
    make_splits,
    split_groups,
    without_groups_of,
    write_splits,
)

INFO = DatasetInfo(
    name="two", classes=(TissueClass(name="A", color=(1, 2, 3)), TissueClass(name="B", color=(4, 5, 6))), mpp=0.5
)
SHAPES = st.lists(st.integers(1, 9), min_size=2, max_size=25)


def make_sample(name: str, group: str, split: str = "train") -> Sample:
    return Sample(name, f"images/{name}.png", f"labels/{name}.png", group, split, field=name)


def make_samples(sizes: list[int], split: str = "train") -> tuple[Sample, ...]:
    return tuple(make_sample(f"{split}{g}_{k}", f"g{g}", split) for g, size in enumerate(sizes) for k in range(size))


def count_px(samples: tuple[Sample, ...], seed: int) -> dict[str, np.ndarray]:
    """Class 0 everywhere, class 1 in few samples, class 2 nowhere."""
    rng = np.random.default_rng(seed)
    return {s.sample: np.array([rng.integers(1, 1000), rng.integers(0, 50) // 45 * 100, 0]) for s in samples}


@settings(max_examples=60)
@given(sizes=SHAPES, n_folds=st.integers(2, 6), seed=st.integers(0, 99), by_class=st.booleans())
def test_folds_hold_every_sample_once_and_whole_groups(
    sizes: list[int], n_folds: int, seed: int, by_class: bool
) -> None:
    samples = make_samples(sizes)
    class_px = count_px(samples, seed) if by_class else None
    if len(sizes) < n_folds:
        with pytest.raises(ConfigError, match=f"{len(sizes)} groups cannot be dealt to {n_folds} parts"):
            deal_groups(samples, [1] * n_folds, seed=seed, class_px=class_px)
        return
    validated = Counter[str]()
    for fold in range(n_folds):
        anew = split_groups(samples, [1] * n_folds, fold, seed=seed, class_px=class_px)
        assert [s.sample for s in anew] == [s.sample for s in samples]
        val = {s.group for s in anew if s.split == "val"}
        assert val
        assert val.isdisjoint(s.group for s in anew if s.split == "train")
        validated.update(s.sample for s in anew if s.split == "val")
        assert anew == split_groups(samples[::-1], [1] * n_folds, fold, seed=seed, class_px=class_px)[::-1]
    assert validated == Counter(s.sample for s in samples)


@settings(max_examples=60)
@given(sizes=SHAPES, val_share=st.floats(0.05, 0.95), n_folds=st.integers(2, 6), seed=st.integers(0, 99))
def test_no_part_exceeds_its_share_and_the_largest_group(
    sizes: list[int], val_share: float, n_folds: int, seed: int
) -> None:
    samples = make_samples(sizes)
    for shares in ([1 - val_share, val_share], [1.0] * min(n_folds, len(sizes))):
        part_of = deal_groups(samples, shares, seed=seed, class_px=count_px(samples, seed))
        found = np.bincount([part_of[s.group] for s in samples], minlength=len(shares))
        assert found.min() > 0
        assert (found <= np.array(shares) / sum(shares) * len(samples) + max(sizes)).all()


def test_seeds_differ_and_samples_and_rare_classes_are_spread() -> None:
    samples = make_samples([2] * 25)
    # Five groups hold all pixels of the second class: each of five folds gets one of them.
    class_px = {s.sample: np.array([100, 60 if int(s.group[1:]) % 5 == 0 else 0]) for s in samples}
    dealt = [deal_groups(samples, [1] * 5, seed=seed, class_px=class_px) for seed in range(4)]
    assert len({tuple(sorted(d.items())) for d in dealt}) == 4
    for part_of in dealt:
        assert set(np.bincount(list(part_of.values()))) == {5}
        assert sorted(part_of[f"g{g}"] for g in range(0, 25, 5)) == list(range(5))


def test_other_splits_pass_and_val_may_be_dealt_too() -> None:
    samples = (*make_samples([1] * 6), *make_samples([1] * 2, "val"), *make_samples([3] * 2, "test"))
    with pytest.raises(ConfigError, match="a split 'val' already"):
        split_groups(samples, [1, 1], 0)
    with pytest.raises(DataError, match=r"no sample of the split 'training'\. The splits are: test, train, val"):
        split_groups(samples, [1, 1], 0, within=("training",))
    anew = split_groups(samples, [1, 1], 0, within=("train", "val"))
    assert [s.split for s in anew[8:]] == ["test"] * 6
    assert {s.split for s in anew[:8]} == {"train", "val"}


def test_training_samples_of_tested_patients_are_left_out() -> None:
    samples = (*make_samples([2, 3, 4]), make_sample("t", "g1", "test"), make_sample("other", "g1", "testB"))
    kept = without_groups_of(samples, "test")
    assert {s.group for s in kept if s.split == "train"} == {"g0", "g2"}
    assert [s.sample for s in kept if s.split != "train"] == ["t", "other"]
    with pytest.raises(DataError, match="no sample of the split 'testA'"):
        without_groups_of(samples, "testA")
    with pytest.raises(ConfigError, match="apart from itself"):
        without_groups_of(samples, "train")
    with pytest.raises(DataError, match="every group of train, val occurs in test too"):
        without_groups_of(samples[2:5] + samples[-2:], "test")


# --- the authors' folds -----------------------------------------------------------------------------------------------

ROI = "TCGA-A1-A0SK-DX1_xmin1_ymin2_MPP-0.2500"


def write_folds(path: Path, rows: list[tuple[str, object]], header: str = "img_id,fold") -> Path:
    path.write_text("\n".join([header, *(f"{name},{fold}" for name, fold in rows)]) + "\n")
    return path


def test_authors_folds_are_matched_by_name_or_image(tmp_path: Path) -> None:
    rows = [(f"{ROI}_0_0", 0), (f"{ROI}_0_790", 1), ("train_3.png", 2), ("test_1", -1)]
    folds = load_folds(write_folds(tmp_path / "cv.csv", rows))
    assert folds == {f"{ROI}_0_0": 0, f"{ROI}_0_790": 1, "train_3": 2, "test_1": -1}
    samples = (
        make_sample(f"{ROI}_0_0", "a"),
        make_sample(f"{ROI}_0_790", "a"),
        Sample("crag-3", "images/train_3.png", "labels/crag-3.png", "b", "x", field="crag-3"),
        make_sample("test_1", "c"),
        make_sample("not_named", "d"),
    )
    assert [s.split for s in split_as_authors(samples, folds)] == ["val", "train", "train", "test"]
    assert [s.split for s in split_as_authors(samples, folds, 2)] == ["train", "train", "val", "test"]
    for fold in (3, -1):
        with pytest.raises(ConfigError, match=rf"no fold {fold}\. The folds are: 0, 1, 2\."):
            split_as_authors(samples, folds, fold)
    with pytest.raises(DataError, match="name 2 of 4 images that the data do not have, such as test_1"):
        split_as_authors(samples[:2], folds)


BAD_FOLDS = {
    "columns": ("image,fold\na,1\n", "lacks the column img_id. Its columns must be img_id, fold"),
    "twice": ("img_id,fold\na,1\nb,1\na.png,2\n", "line 4: img_id a occurs twice"),
    "words": ("img_id,fold\na,first\n", "the fold of a is 'first'"),
    "short": ("img_id,fold\na\n", "the fold of a is ''"),
    "empty": ("img_id,fold\n", "lists no sample"),
}


@pytest.mark.parametrize("name", BAD_FOLDS)
def test_bad_files_of_folds_are_named(tmp_path: Path, name: str) -> None:
    text, message = BAD_FOLDS[name]
    (tmp_path / "cv.csv").write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        load_folds(tmp_path / "cv.csv")
    assert "\n" not in str(caught.value)


def test_published_folds_are_downloaded_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pooch
    import requests

    monkeypatch.setenv("SAMPATH_WSI_CACHE", str(tmp_path))
    rows: list[tuple[str, object]] = [(f"train_{k}", k % 5) for k in range(173)]
    rows += [(f"test_{k}", -1) for k in range(40)]
    asked: list[str] = []

    def retrieve(url: str, **_: object) -> str:
        asked.append(url)
        return str(write_folds(tmp_path / "cv.csv", rows))

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    assert len(load_folds("crag")) == 213
    assert asked[0].startswith("https://raw.githubusercontent.com/cvlab-stonybrook/SAMPath/")
    assert asked[0].endswith("/dataset_cfg/CRAG_cv.csv")
    rows.pop()
    with pytest.raises(DataError, match="212 images, 39 of them for testing, instead of 213 and 40"):
        load_folds("crag")
    assert len(load_folds("https://example.org/cv.csv")) == 212
    with pytest.raises(ConfigError, match=r"nowhere\.csv: there is no such file of folds"):
        load_folds("nowhere.csv")

    def fail(url: str, **_: object) -> str:
        raise requests.ConnectionError(url)

    monkeypatch.setattr(pooch, "retrieve", fail)
    with pytest.raises(DataError, match=r"ConnectionError.*get https://.*BCSS_cv\.csv elsewhere and give its path"):
        load_folds("bcss")


# --- options ---------------------------------------------------------------------------------------------------------

BAD_OPTIONS: dict[str, tuple[dict[str, object], str]] = {
    "two ways": ({"folds": 5, "val_share": 0.2}, "exclude each other"),
    "no way": ({}, "nothing to do"),
    "authors within": ({"authors": "crag", "within": ["train"]}, "name every split themselves"),
    "fold": ({"folds": 5, "fold": 5}, "of 5 folds none has the number 5"),
    "share": ({"val_share": 1.0}, r"split, val_share: 1\.0 cannot be used: input should be less than 1"),
}


@pytest.mark.parametrize("name", BAD_OPTIONS)
def test_bad_options_are_refused(name: str) -> None:
    given, message = BAD_OPTIONS[name]
    with pytest.raises(ConfigError, match=message):
        SplitOptions.of(given, "split")


@pytest.fixture
def data(tmp_path: Path) -> PreparedData:
    """Six patients of two images each in train; patients 4 to 6 in test, so that 4 and 5 are on both sides."""
    rng = np.random.default_rng(0)
    images: list[LabelledImage] = []
    for k, (patient, split) in enumerate([*((p, "train") for p in range(12)), *((p, "test") for p in (8, 10, 12))]):
        image = rng.integers(0, 256, (8, 8, 3), np.uint8)
        images.append(LabelledImage(f"s{k}", image, rng.integers(0, 3, (8, 8), np.uint8), f"p{patient // 2}", split))
    write_prepared(tmp_path / "data", INFO, {"all": lambda: images})
    return read_prepared(tmp_path / "data")


def test_a_splits_file_is_read_again(tmp_path: Path, data: PreparedData) -> None:
    samples = make_splits(data, SplitOptions(folds=2, disjoint_from="test", seed=3))
    write_splits(tmp_path / "out" / "splits.csv", samples)
    rows = [line.split(",") for line in (tmp_path / "out" / "splits.csv").read_text().splitlines()]
    assert rows[0] == ["sample", "split"]
    assert len(rows) == 1 + len(samples) == 1 + 8 + 3
    again = read_prepared(tmp_path / "data", tmp_path / "out" / "splits.csv")
    assert again.samples == samples
    assert leakage_of(data).severity == "leak"
    assert leakage_of(again).severity == "none"
    share = make_splits(data, SplitOptions(val_share=0.34, seed=3))
    assert Counter(s.split for s in share) == {"train": 8, "val": 4, "test": 3}
    assert len(make_splits(data, SplitOptions(disjoint_from="test"))) == 8 + 3


def test_authors_folds_of_a_data_set(tmp_path: Path, data: PreparedData) -> None:
    rows: list[tuple[str, object]] = [
        (s.sample, -1 if s.split == "test" else k % 5) for k, s in enumerate(data.samples)
    ]
    path = write_folds(tmp_path / "cv.csv", rows)
    samples = make_splits(data, SplitOptions(authors=str(path)))
    assert Counter(s.split for s in samples) == {"train": 9, "val": 3, "test": 3}
    disjoint = make_splits(data, SplitOptions(authors=str(path), disjoint_from="test"))
    assert {s.group for s in disjoint if s.split != "test"} == {"p0", "p1", "p2", "p3"}
