"""The validator of GeoJSON catches every rule that is broken, one at a time."""

from __future__ import annotations

import copy
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .geojson_validator import validate

FEATURE = {
    "type": "Feature",
    "id": "12345678-1234-5678-9234-567812345678",
    "geometry": {
        "type": "Polygon",
        "coordinates": [
            [[0, 0], [10.25, 0], [10, 10], [0, 10], [0, 0]],
            [[2, 2], [2, 4], [4, 4], [2, 2]],
        ],
    },
    "properties": {
        "objectType": "annotation",
        "classification": {"name": "Tumor", "color": [200, 0, 0]},
        "isLocked": True,
        "name": "Tumor 1",
        "measurements": {"Area µm^2": 12.5},
    },
}
TRIANGLE = [[[0, 0], [4, 0], [0, 4], [0, 0]]]
OTHER = [[[20, 0], [24, 0], [20, 4], [20, 0]]]


def collection(*features: Any) -> dict[str, Any]:
    return {"type": "FeatureCollection", "features": list(features)}


def write(path: Path, document: Any) -> Path:
    text = document if isinstance(document, str) else json.dumps(document)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def geometry(kind: str, coordinates: Any) -> Callable[[dict[str, Any]], None]:
    return lambda feature: feature.update(geometry={"type": kind, "coordinates": coordinates})


def properties(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda feature: feature["properties"].update(changes)


def without(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda feature: feature["properties"].pop(key)


def classification(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda feature: feature["properties"]["classification"].update(changes)


@pytest.mark.parametrize("name", ["a.geojson", "a.json", "a.geojson.gz"])
def test_good_files_pass(tmp_path: Path, name: str) -> None:
    several = copy.deepcopy(FEATURE)
    geometry("MultiPolygon", [TRIANGLE, OTHER])(several)
    several["id"] = "22345678-1234-5678-9234-567812345678"
    properties(objectType="detection", isLocked=False, metadata={"a": "b"})(several)
    assert validate(write(tmp_path / name, collection(FEATURE, several))) == []
    assert validate(write(tmp_path / name, collection())) == []


BREAKS: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (lambda f: f.update(type="feature"), "not a Feature"),
    (lambda f: f.pop("id"), "id is not a UUID"),
    (lambda f: f.update(id="PathAnnotationObject"), "id is not a UUID"),
    (lambda f: f.update(id=FEATURE["id"].replace("-", "")), "usual form"),  # type: ignore[attr-defined]
    (lambda f: f.pop("properties"), "properties is not an object"),
    (lambda f: f.update(geometry=None), "contains null"),
    (properties(color=None), "contains null"),
    (properties(extra=[[1, None]]), "contains null"),
    (without("objectType"), "objectType"),
    (properties(objectType="root"), "objectType"),
    (properties(isLocked="true"), "isLocked"),
    (without("name"), "name is not a text"),
    (without("classification"), "classification is not an object"),
    (properties(classification="Tumor"), "classification is not an object"),
    (classification(name=" "), "blank"),
    (classification(name="Tumor: Positive"), "derived class"),
    (classification(name="Region*"), "ignored class"),
    (lambda f: f["properties"]["classification"].pop("color"), "color"),
    (classification(color="#c80000"), "color"),
    (classification(color=-3670016), "color"),
    (classification(color=[200, 0, 256]), "color"),
    (classification(color=[200, 0]), "color"),
    (properties(measurements=[{"name": "a", "value": 1}]), "measurements is not an object"),
    (properties(measurements={"a": "1"}), "not a finite number"),
    (properties(measurements={"a": True}), "not a finite number"),
    (properties(measurements={"a": float("nan")}), "NaN is not strict JSON"),
    (properties(measurements={"a": 1e999}), "Infinity is not strict JSON"),
    (properties(metadata={"a": 1}), "metadata"),
    (geometry("GeometryCollection", []), "geometry of type"),
    (geometry("Point", [1, 2]), "geometry of type"),
    (geometry("MultiPolygon", [TRIANGLE]), "single part"),
    (geometry("MultiPolygon", [TRIANGLE, [[[1, 1], [9, 1], [1, 9], [1, 1]]]]), "invalid once rounded"),
    (geometry("Polygon", []), "without rings"),
    (geometry("MultiPolygon", []), "no coordinates"),
    (geometry("Polygon", [[[0, 0], [1, 0], [0, 0]]]), "fewer than four"),
    (geometry("Polygon", [[[0, 0], [4, 0], [0, 4], [0, 1]]]), "not closed"),
    (geometry("Polygon", [[[0, 0], [4, 0], [0, "4"], [0, 0]]]), "two finite numbers"),
    (geometry("Polygon", [[[0, 0], [4, 0], [0, None], [0, 0]]]), "two finite numbers"),
    (geometry("Polygon", [[[0, 0, 0], [4, 0, 0], [0, 4, 0], [0, 0, 0]]]), "two finite numbers"),
    (geometry("Polygon", [[[0, 0], [4, 4], [4, 0], [0, 4], [0, 0]]]), "invalid once rounded"),
    (geometry("Polygon", [*TRIANGLE, [[9, 9], [9, 8], [8, 8], [9, 9]]]), "invalid once rounded"),
    (geometry("Polygon", [[[0, 0], [4, 0], [0, 4.004], [0, 0]]]), "more than two decimals"),
    # Valid as it stands, but a spike of no width once rounded.
    (
        geometry("Polygon", [[[0, 0], [4, 0], [4, 4], [2, 4], [2, 9], [1.998, 4], [0, 4], [0, 0]]]),
        "invalid once rounded",
    ),
    (geometry("Polygon", [[[0, 0], [0.01, 0], [0, 0.01], [0, 0]]]), "without area"),
]


@pytest.mark.parametrize(("break_it", "rule"), BREAKS, ids=[f"{k}-{rule}" for k, (_, rule) in enumerate(BREAKS)])
def test_every_broken_rule_is_caught(tmp_path: Path, break_it: Callable[[Any], Any], rule: str) -> None:
    bad = copy.deepcopy(FEATURE)
    break_it(bad)
    found = validate(write(tmp_path / "a.geojson", collection(bad)))
    assert any(rule in problem for problem in found), found


@pytest.mark.parametrize(
    ("document", "rule"),
    [
        ("", "JSONDecodeError"),
        (json.dumps(collection(FEATURE))[:-1] + ",}", "JSONDecodeError"),
        (json.dumps(collection(FEATURE)).replace('"type"', '"type": "x", "type"', 1), "occurs twice"),
        ([FEATURE], "not a JSON object"),
        (FEATURE, "not a FeatureCollection"),
        ({"type": "FeatureCollection", "features": {}}, "features is not a list"),
        (collection(FEATURE, FEATURE), "id occurs twice"),
        (collection([]), "not a Feature"),
        ("[" * 100_000, "RecursionError"),
    ],
)
def test_broken_documents(tmp_path: Path, document: Any, rule: str) -> None:
    found = validate(write(tmp_path / "a.geojson", document))
    assert any(rule in problem for problem in found), found


def test_broken_files(tmp_path: Path) -> None:
    assert any("suffix" in p for p in validate(write(tmp_path / "a.gz", collection())))
    assert any("suffix" in p for p in validate(write(tmp_path / "a.txt", collection())))
    packed = write(tmp_path / "a.geojson.gz", collection(FEATURE))
    packed.write_bytes(packed.read_bytes()[:-9])
    assert any("EOFError" in p for p in validate(packed))
    latin = tmp_path / "b.geojson"
    latin.write_bytes(json.dumps(collection(FEATURE), ensure_ascii=False).encode("latin-1"))
    assert any("UnicodeDecodeError" in p for p in validate(latin))
    assert any("FileNotFoundError" in p for p in validate(tmp_path / "none.geojson"))
