"""Label maps: what ships, what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from sampath_wsi.errors import ConfigError, DataError
from sampath_wsi.model.zoo import BCSS_CLASSES, CRAG_CLASSES
from sampath_wsi.training.data.prepare.label_map import SHIPPED, LabelMap, load_label_map

ROOT = Path(__file__).resolve().parents[3]
TWO = "classes:\n  - {name: A, color: [1, 2, 3], codes: {1: a}}\n  - {name: B, color: [4, 5, 6], codes: {2: b}}\n"


def test_shipped_label_maps_have_the_classes_of_the_models() -> None:
    assert load_label_map("bcss").tissue_classes == BCSS_CLASSES
    assert load_label_map("crag").tissue_classes == CRAG_CLASSES
    assert load_label_map("glas").tissue_classes == CRAG_CLASSES
    assert {file.stem for file in SHIPPED.glob("*.yaml")} == {"bcss", "crag", "glas"}


def test_every_code_of_bcss_has_its_class() -> None:
    bcss = load_label_map("bcss")
    labels = bcss.encode(np.arange(22, dtype=np.uint8).reshape(2, 11), Path("m.png"))
    assert labels.dtype == np.uint8
    assert labels.ravel().tolist() == [0, 1, 2, 3, 4] + [5] * 17


def test_every_value_but_zero_is_a_gland() -> None:
    codes = np.array([[0, 1, 255, 65535]], np.uint16)
    assert load_label_map("crag").encode(codes, Path("m.png")).tolist() == [[1, 2, 2, 2]]


def test_an_unknown_code_is_named_with_its_file() -> None:
    with pytest.raises(DataError, match=r"some/m\.png: the code 22 is unknown \(BCSS has 0, 1, 2") as caught:
        load_label_map("bcss").encode(np.array([[1, 200, 22]], np.uint8), Path("some/m.png"))
    assert "--label-map" in str(caught.value)
    with pytest.raises(DataError, match="values up to 70000"):
        load_label_map("bcss").encode(np.array([[70000]], np.int32), Path("m.png"))


def test_a_label_map_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(f"name: own\nignored: {{9: nothing}}\n{TWO}")
    assert load_label_map(path).encode(np.array([[9, 2, 1]], np.uint8), path).tolist() == [[0, 2, 1]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TWO, "bad.yaml: 'name' is missing or empty"),
        ("name: x\nclasses: [{name: A}]\n", "bad.yaml, classes.0: 'color' is missing"),
        (f"name: x\nclases: []\n{TWO}", "there is no key 'clases'; is 'classes' meant"),
        (f"name: x\nignored: {{2: b}}\n{TWO}", "code 2 occurs twice"),
        (f"name: x\nignored_names: [B]\n{TWO}", "name 'B' occurs twice"),
        (f"name: x\nother_codes: C\n{TWO}", "other_codes: there is no class 'C'"),
        (f"name: x\nunclassified: C\n{TWO}", "unclassified: there is no class 'C'"),
        ("name: x\nclasses: []\n", r"classes: \[\] cannot be used: .* at least 1 item.* Expected: 1 to 254 classes"),
        ("name: x\nclasses:\n - {name: 'A:B', color: [1, 2, 3]}\n", "classes.0.name: .*contains ':'"),
        ("name: x\nclasses:\n - {name: A, color: [1, 2, 300]}\n", r"classes\.0\.color\.2: 300 cannot be used"),
        (
            "name: x\nclasses:\n - {name: A, colour: [1, 2, 3], color: [1, 2, 3]}\n",
            r"classes\.0: there .*'color' meant",
        ),
        ("name: [x", "not a YAML file"),
        ("", "'name' is missing or empty"),
        ("[1]", "is no group of keys"),
    ],
)
def test_bad_label_maps_are_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_label_map(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_label_map_is_named() -> None:
    with pytest.raises(ConfigError, match=r"no such label map.*bcss, crag, glas"):
        load_label_map("nothing")


def test_the_documentation_explains_every_key() -> None:
    text = (ROOT / "docs" / "data.md").read_text()
    section = text[text.index("## Label maps") :]
    assert [key for key in LabelMap.model_fields if f"`{key}`" not in section] == []
    example = re.search(r"```yaml\n(.*?)```", section, re.DOTALL)
    assert example is not None
    label_map = LabelMap.model_validate(yaml.safe_load(example[1]))
    assert label_map.encode(np.array([[0, 1, 2, 20]], np.uint8), Path("m.png")).tolist() == [[0, 1, 2, 1]]
