"""Leakage: each kind is found and counted, nothing is found where there is none, and the real GlaS split leaks."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from sampath_wsi.classes import TissueClass
from sampath_wsi.cli import app
from sampath_wsi.errors import DataError
from sampath_wsi.training.data.leakage import LeakageReport, find_leakage, leakage_of
from sampath_wsi.training.data.prepared import DatasetInfo, PreparedData, Sample, read_prepared
from sampath_wsi.training.data.prepared_writer import LabelledImage, write_prepared
from sampath_wsi.training.data.splits import split_groups, without_groups_of

INFO = DatasetInfo(name="one", classes=(TissueClass(name="A", color=(1, 2, 3)),), mpp=0.5)


def tile(name: str, group: str, field: str = "", x_px: int = 0, y_px: int = 0) -> Sample:
    return Sample(name, f"images/{name}.png", "", group, "", field=field or name, x_px=x_px, y_px=y_px)


def kinds(report: LeakageReport) -> list[str]:
    return [leak.kind for leak in report.leaks]


def test_nothing_in_common_is_no_leak() -> None:
    report = find_leakage({"train": [tile("a", "1")], "val": [tile("b", "2")], "test": []}, {})
    assert report.severity == "none"
    assert report.summary == "no leakage between train, val, test (looked for: groups, fields, overlapping tiles)"
    assert report.to_json() == {
        "severity": "none",
        "summary": report.summary,
        "samples": {"train": 1, "val": 1, "test": 0},
        "images_compared": False,
        "leaks": [],
    }


def test_groups_are_counted_with_their_samples() -> None:
    train = [tile(f"a{k}", str(k % 12)) for k in range(24)]
    report = find_leakage({"train": train, "val": [tile("v", "13")], "test": [tile("t", "10"), tile("u", "9")]}, {})
    (leak,) = report.leaks
    assert (leak.kind, leak.splits, leak.count, leak.samples) == ("group", ("train", "test"), 2, (4, 2))
    assert leak.examples == ("9", "10")
    assert str(leak) == "train and test share 2 groups (9, 10): 4 and 2 samples"
    assert report.severity == "leak"
    many = find_leakage({"train": train, "test": train}, {s.sample: (1, 1) for s in train})
    assert "share 12 groups (0, 1, 2, ...): 24 and 24 samples" in many.summary
    assert json.loads(json.dumps(many.to_json())) == many.to_json()


@pytest.mark.parametrize(("x_px", "y_px", "overlap"), [(9, 0, "1 x 10"), (10, 0, ""), (4, 7, "6 x 3"), (0, 10, "")])
def test_tiles_of_a_field_leak_pixels_only_where_they_overlap(x_px: int, y_px: int, overlap: str) -> None:
    train, test = [tile("a", "1", "roi")], [tile("b", "2", "roi", x_px, y_px), tile("c", "2", "other")]
    report = find_leakage({"train": train, "test": test}, {"a": (10, 10), "b": (10, 10), "c": (10, 10)})
    assert kinds(report) == (["field", "pixels"] if overlap else ["field"])
    assert report.leaks[0].examples == ("roi",)
    if overlap:
        assert report.leaks[1].examples == (f"a & b: {overlap} px",)
        assert "1 pair of overlapping tiles" in report.summary


@settings(max_examples=50)
@given(
    boxes=st.lists(
        st.tuples(st.booleans(), st.integers(0, 12), st.integers(0, 12), st.integers(1, 6), st.integers(1, 6)),
        min_size=2,
        max_size=12,
    )
)
def test_overlaps_are_those_of_painted_rectangles(boxes: list[tuple[bool, int, int, int, int]]) -> None:
    painted, sizes = [], {}
    sides: dict[str, list[Sample]] = {"train": [], "test": []}
    for k, (right, x, y, w, h) in enumerate(boxes):
        sides["test" if right else "train"].append(tile(f"s{k}", str(right), "roi", x, y))
        sizes[f"s{k}"] = (w, h)
        canvas = np.zeros((20, 20), bool)
        canvas[y : y + h, x : x + w] = True
        painted.append((right, canvas))
    pairs = sum((a & b).any() for left, a in painted if not left for right, b in painted if right)
    found = [leak.count for leak in find_leakage(sides, sizes).leaks if leak.kind == "pixels"]
    assert found == ([pairs] if pairs else [])


@pytest.fixture
def data(tmp_path: Path) -> PreparedData:
    """Two patients; an image of the second is one of the first again, and a blank image lies on both sides."""
    rng = np.random.default_rng(0)
    again, blank = rng.integers(0, 256, (6, 7, 3), np.uint8), np.full((6, 7, 3), 240, np.uint8)
    label = np.ones((6, 7), np.uint8)
    images: list[LabelledImage] = []
    for name, image in (("a", again), ("b", blank), ("c", rng.integers(0, 256, (6, 7, 3), np.uint8))):
        images.append(LabelledImage(name, image, label, "p1", "train"))
    for name, image in (("d", blank), ("e", again)):
        images.append(LabelledImage(name, image, label, "p2", "test"))
    write_prepared(tmp_path / "data", INFO, {"all": lambda: images})
    Image.fromarray(again).save(tmp_path / "data" / "images" / "e.png", compress_level=0)
    return read_prepared(tmp_path / "data")


def test_the_same_pixels_under_two_names_are_found_on_request(data: PreparedData) -> None:
    assert leakage_of(data).severity == "none"
    report = leakage_of(data, hash_pixels=True)
    (leak,) = report.leaks
    assert (leak.kind, leak.count, leak.samples, leak.examples) == ("image", 1, (1, 1), ("a = e",))
    clean = replace(data, samples=data.samples[:4])
    assert "identical images" in leakage_of(clean, hash_pixels=True).summary
    assert leakage_of(data, ["train"], hash_pixels=True).samples == {"train": 3}
    with pytest.raises(DataError, match="no sample of the split 'val'"):
        leakage_of(data, ["train", "val"])


def test_images_turned_on_their_side_are_others(tmp_path: Path) -> None:
    image = np.arange(3 * 8, dtype=np.uint8).reshape(2, 4, 3)
    images: list[LabelledImage] = []
    images.append(LabelledImage("a", image, np.ones((2, 4), np.uint8), "p1", "train"))
    images.append(LabelledImage("b", image.reshape(4, 2, 3), np.ones((4, 2), np.uint8), "p2", "test"))
    write_prepared(tmp_path / "data", INFO, {"all": lambda: images})
    assert leakage_of(read_prepared(tmp_path / "data"), hash_pixels=True).severity == "none"


def test_the_official_split_of_glas_leaks_eight_patients(shared_data: Path) -> None:
    with (shared_data / "glas" / "samples.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    samples = [
        replace(tile(row["name"], row["patient"], row["field"] or row["name"]), split=row["split"]) for row in rows
    ]
    sides = {name: [s for s in samples if s.split == name] for name in ("train", "testA")}
    # Quadrants of a field join without overlap; here it matters only that no field is on both sides.
    (leak,) = find_leakage(sides, {}).leaks
    assert (leak.kind, leak.count, leak.samples) == ("group", 8, (45, 59))
    shared = {s.group for s in sides["train"]} & {s.group for s in sides["testA"]}
    assert shared == {"3", "4", "7", "9", "10", "11", "13", "15"}
    disjoint = without_groups_of(samples, "testA")
    assert sum(s.split == "train" for s in disjoint) == 40
    dealt = split_groups(disjoint, [1] * 4, 0)
    assert (
        find_leakage({n: [s for s in dealt if s.split == n] for n in ("train", "val", "testA")}, {}).severity == "none"
    )


def test_the_commands_split_and_check(tmp_path: Path, data: PreparedData) -> None:
    def run(*words: object):
        return CliRunner().invoke(app, ["prepare", *map(str, words)])

    folder, out = tmp_path / "data", tmp_path / "report.json"
    assert run("check", folder, "--strict").exit_code == 0
    found = run("check", folder, "--pixels", "--strict", "--out", out)
    assert found.exit_code == 2
    assert "3 samples in train, 2 samples in test" in found.stdout
    assert "train and test share 1 image under two names (a = e): 1 and 1 samples" in found.stdout
    assert json.loads(out.read_text())["severity"] == "leak"
    assert run("check", folder, "--pixels").exit_code == 0

    splits = tmp_path / "splits.csv"
    words = ["split", folder, splits, "--val-share", "0.4", "--within", "train", "--within", "test"]
    assert run(*words, "--seed", "1").exit_code == 0
    assert sorted(splits.read_text().split()) == ["a,train", "b,train", "c,train", "d,val", "e,val", "sample,split"]
    checked = run("check", folder, "--splits", splits, "--strict")
    assert checked.exit_code == 0
    assert "no leakage between train, val" in checked.stdout
    refused = run("split", folder, splits, "--folds", "2")
    assert "1 groups cannot be dealt to 2 parts" in str(refused.exception)
