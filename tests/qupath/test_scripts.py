"""The Groovy scripts for QuPath, compiled and run against stand-ins of the parts of QuPath that they call.

QuPath itself is not here: the stand-ins (stand_ins/) have the names and the parameters of its classes, as its sources
of versions 0.4 to 0.7 give them. Groovy is Debian's; where there is none, the tests that run scripts are skipped.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from sampath_wsi.errors import ConfigError
from sampath_wsi.qupath import read_annotations
from sampath_wsi.qupath.scripts import EXPORT, IMPORT, write_scripts
from sampath_wsi.runs.sheet import read_slides, safe_id

HERE = Path(__file__).parent
COLOURS = {"Tumor": [200, 0, 0], "Stroma": [150, 200, 150], "Ignore*": [180, 180, 180]}

needs_groovy = pytest.mark.groovy


def feature(number: int, kind: str = "annotation", name: str | None = "Tumor", side: int = 10) -> dict[str, Any]:
    x = 20 * number
    ring = [[x, 0], [x + side, 0], [x + side, side], [x, side], [x, 0]]
    properties: dict[str, Any] = {"objectType": kind}
    if name is not None:
        properties["classification"] = {"name": name, "color": COLOURS.get(name, [1, 2, 3])}
    return {
        "type": "Feature",
        "id": str(UUID(int=number)),
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": properties,
    }


def write_result(
    results: Path, slide: str, features: list[Any], *, file: str = "", tiles: list[Any] | None = None
) -> None:
    """A finished slide's folder, as far as the script looks at it."""
    folder = results / "slides" / slide
    folder.mkdir(parents=True, exist_ok=True)
    for name, written in (("segmentation", features), ("tiles", tiles)):
        if written is not None:
            document = {"type": "FeatureCollection", "features": written}
            (folder / f"{name}.geojson.gz").write_bytes(gzip.compress(json.dumps(document).encode(), mtime=0))
    classes = {name: {"area_mm2": 1.0, "percent": 50.0, "color": color} for name, color in COLOURS.items()}
    summary = {"slide": slide, "file": file or f"{slide}.svs", "classes": classes, "objects": {"Tumor": len(features)}}
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")


def image(number: int, name: str, features: list[Any] | None = None, **others: Any) -> dict[str, Any]:
    known = {"id": str(number), "name": name, "uris": [f"file:/slides/{name}".replace(" ", "%20")], "mpp": 0.25}
    return {**known, "width": 1000, "height": 800, "objects": features or [], **others}


@dataclass
class QuPath:
    """A project of stand-ins in a folder."""

    folder: Path
    state: dict[str, Any]

    def __init__(self, folder: Path, images: list[dict[str, Any]], **others: Any) -> None:
        self.folder = folder
        (folder / "project").mkdir(parents=True, exist_ok=True)
        known = {"folder": str(folder / "project"), "knownClasses": {}, "classes": ["Mine"], "images": images}
        self.state = {**known, **others}

    def run(self, script: str | Path, *arguments: str | Path) -> list[str]:
        """Run a script of the package, or a file; returns what it printed."""
        groovy = shutil.which("groovy")
        if groovy is None:
            pytest.skip("Groovy is not installed (make test-groovy installs it)")
        state = self.folder / "state.json"
        state.write_text(json.dumps(self.state), encoding="utf-8")
        (path,) = [p for p in write_scripts(self.folder / "scripts", force=True) if p.name == str(script)] or [script]
        command = [groovy, "-cp", HERE / "stand_ins", HERE / "run_script.groovy", state, path, *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, encoding="utf-8", timeout=3600, env=_environment(), check=False
        )
        assert done.returncode == 0, done.stderr
        self.state = json.loads(state.read_text(encoding="utf-8"))
        return done.stdout.splitlines()

    def ids(self, number: int = 0) -> list[int]:
        return sorted(UUID(f["id"]).int for f in self.state["images"][number]["objects"])


def _environment() -> dict[str, str]:
    """Debian's launcher of Groovy looks for Java where not every image has it."""
    java = shutil.which("java")
    home = {} if java is None else {"JAVA_HOME": str(Path(java).resolve().parents[1])}
    return {**os.environ, **home, "LC_ALL": "C.UTF-8"}


@needs_groovy
def test_results_come_in_by_slide_name_once(tmp_path: Path) -> None:
    results = tmp_path / "results"
    write_result(results, "a", [feature(1), feature(2, name="Stroma")], tiles=[feature(3, "tile")])
    write_result(results, "b_1", [feature(4, "detection")], file="b #1.svs")
    write_result(results, "later", [])
    (results / "slides" / "broken").mkdir()
    mine = feature(90, name="Mine")
    qupath = QuPath(
        tmp_path,
        [image(1, "a.svs", [mine]), image(2, "b #1.svs", uris=["file:/slides/b%20%231.svs"]), image(3, "c.svs")],
        knownClasses={"Tumor": 255},
    )
    printed = qupath.run(IMPORT, results)
    assert printed == [
        "a.svs: 2 annotations and 1 tiles",
        "b #1.svs: 1 detections",
        "c.svs: no result has its file name or id",
        "Result later: no image in the project is called later.svs",
        "Result broken: not finished or failed, see cohort.tsv",
        f"Classes: {', '.join(qupath.state['classes'][1:])}",
        "2 imported, 0 unchanged, 1 without result, 0 failed",
    ]
    assert (qupath.ids(0), qupath.ids(1), qupath.ids(2)) == ([1, 2, 3, 90], [4], [])
    assert (qupath.state["classes"][0], {*qupath.state["classes"][1:]}) == ("Mine", {*COLOURS})
    assert {name: qupath.state["colours"][name] for name in COLOURS} == {
        name: (r << 16) + (g << 8) + b for name, (r, g, b) in COLOURS.items()
    }
    assert (qupath.state["problem"], qupath.state["synced"]) == (None, 1)

    assert qupath.run(IMPORT, results / "slides")[:2] == ["a.svs: unchanged", "b #1.svs: unchanged"]
    assert qupath.ids(0) == [1, 2, 3, 90]


@needs_groovy
def test_what_changed_replaces_what_an_import_brought(tmp_path: Path) -> None:
    results = tmp_path / "results"
    write_result(results, "a", [feature(1), feature(2)])
    qupath = QuPath(tmp_path, [image(1, "a.svs", [feature(2), feature(90, name="Mine")], open=True)], window=True)
    # Object 2 was there already: somebody dragged the file onto the image before.
    assert qupath.run(IMPORT, results)[0] == "a.svs: 2 annotations, 1 objects of an earlier import replaced"
    assert qupath.ids() == [1, 2, 90]
    assert (qupath.state["shown"][:2], {*qupath.state["shown"][2:]}) == (["Unclassified", "Mine"], {*COLOURS})
    write_result(results, "a", [feature(1), feature(5)])
    assert qupath.run(IMPORT, results)[0] == "a.svs: 2 annotations, 2 objects of an earlier import replaced"
    assert qupath.ids() == [1, 5, 90]
    objects = qupath.state["images"][0]["objects"]
    qupath.state["images"][0]["objects"] = [f for f in objects if UUID(f["id"]).int != 5]
    assert qupath.run(IMPORT, results)[0] == "a.svs: unchanged, 1 objects were deleted since and stay so"
    assert qupath.ids() == [1, 90]
    qupath.state["images"][0]["objects"] = []
    assert qupath.run(IMPORT, results)[0] == "a.svs: 2 annotations"
    assert qupath.ids() == [1, 5]


@needs_groovy
def test_every_image_that_cannot_be_imported_is_told(tmp_path: Path) -> None:
    results = tmp_path / "results"
    write_result(results, "small", [feature(1), feature(60)])
    write_result(results, "short", [feature(1)])
    summary = results / "slides" / "short" / "summary.json"
    summary.write_text(summary.read_text().replace('"Tumor": 1}', '"Tumor": 2}'))
    write_result(results, "gone", [feature(1)])
    write_result(results, "x1", [feature(1)], file="twice.svs")
    write_result(results, "x2", [feature(1)], file="twice.svs")
    write_result(results, "fine", [feature(1)])
    names = ["small.svs", "short.svs", "gone.svs", "twice.svs", "fine.svs"]
    images = [image(k, name, missing=name == "gone.svs") for k, name in enumerate(names)]
    qupath = QuPath(tmp_path, images)
    printed = qupath.run(IMPORT, results)
    assert printed[0].startswith("small.svs: FAILED: the objects reach to 1210, 10 px, but the image has 1000 x 800 px")
    assert printed[1].startswith("short.svs: FAILED: QuPath read 1 of 2 objects.")
    assert printed[2] == "gone.svs: FAILED: the image file is missing"
    assert printed[3].startswith("twice.svs: FAILED: several results fit: x1, x2.")
    assert printed[4] == "fine.svs: 1 annotations"
    assert printed[-1] == "1 imported, 0 unchanged, 0 without result, 4 failed"
    assert qupath.state["problem"] == "4 images could not be imported: the lines above say why."
    assert qupath.ids(0) == []


@needs_groovy
def test_names_by_which_an_image_finds_its_result(tmp_path: Path) -> None:
    results = tmp_path / "results"
    write_result(results, "x1", [feature(1)], file="twice.svs")
    write_result(results, "x2", [feature(2)], file="twice.svs")
    write_result(results, "dicom", [feature(3)], file="0001.dcm")
    write_result(results, "scan", [feature(4)], file="scan.vsi")
    write_result(results, "Case_7", [feature(5)], file="elsewhere.svs")
    images = [
        image(1, "blinded", originalName="x2", uris=["file:/slides/twice.svs"]),
        image(2, "dicom", uris=["file:/slides/dicom/0007.dcm"]),
        image(3, "scan.vsi - 20x", uris=["file:/slides/other.bin"]),
        image(4, "Case 7.svs", uris=["https://server/Case 7.svs".replace(" ", "%20")]),
    ]
    qupath = QuPath(tmp_path, images)
    assert qupath.run(IMPORT, results)[0] == "blinded: 1 annotations"
    assert [qupath.ids(k) for k in range(4)] == [[2], [3], [4], [5]]


@needs_groovy
def test_where_the_results_are(tmp_path: Path) -> None:
    results = tmp_path / "res 'ü"
    write_result(results, "a", [feature(1)])
    qupath = QuPath(tmp_path, [image(1, "a.svs")])
    assert qupath.run(IMPORT) == []
    assert qupath.state["problem"].startswith("No results folder: set resultsFolder at the top")
    qupath.run(IMPORT, tmp_path)
    assert "holds no folder 'slides'" in qupath.state["problem"]
    asked = QuPath(tmp_path / "window", [image(1, "a.svs")], window=True, answer=str(results))
    assert asked.run(IMPORT)[0] == "a.svs: 1 annotations"
    written, _ = write_scripts(tmp_path / "set", results=results)
    preset = QuPath(tmp_path / "preset", [image(1, "a.svs")])
    assert preset.run(written)[0] == "a.svs: 1 annotations"


@needs_groovy
def test_which_project(tmp_path: Path) -> None:
    results = tmp_path / "results"
    write_result(results, "a", [feature(1)])
    closed = QuPath(tmp_path, [image(1, "a.svs", [feature(90)])], noProject=True)
    for script in (IMPORT, EXPORT):
        closed.run(script, results)
        assert closed.state["problem"].startswith("No project is open")
    project = tmp_path / "project" / "project.qpproj"
    assert closed.run(IMPORT, project, results)[0] == "a.svs: 1 annotations"
    assert closed.run(EXPORT, project, tmp_path / "out")[0].startswith("a.svs: 1 annotations, 1 imported")
    each = QuPath(tmp_path / "each", [image(1, "a.svs", [feature(90)])], runForEachImage=True)
    for script in (IMPORT, EXPORT):
        assert each.run(script, results) == []
        assert each.state["problem"].startswith("This script takes the whole project at once.")


@needs_groovy
def test_annotations_go_out_with_a_sheet_that_training_takes(tmp_path: Path) -> None:
    drawn = [feature(1), feature(2, name="Stroma"), feature(3, name=None), feature(4, "detection")]
    images = [
        image(1, "a b.svs", drawn, metadata={"patient": "P 1"}),
        image(2, "A_b.ndpi", [feature(5)], mpp=None),
        image(3, "empty.svs"),
        image(4, 'q"uote.svs', [feature(6)], open=True, mppY=0.26),
    ]
    images[3]["uris"] = ["file:/slides/q%22uote.svs"]
    qupath = QuPath(tmp_path, images, window=True)
    printed = qupath.run(EXPORT)
    folder = tmp_path / "project" / "training"
    assert printed == [
        "a b.svs: 3 annotations, 1 without a class, which training leaves out",
        "A_b.ndpi: 1 annotations, QuPath knows no pixel size: fill in the column mpp",
        "empty.svs: no annotations",
        'q"uote.svs: 1 annotations',
        f"{folder / 'annotated.tsv'}: 3 slides",
    ]
    assert qupath.state["problem"] is None
    rows = read_slides(str(folder / "annotated.tsv"))
    assert [row.slide for row in rows] == ["a_b", "A_b_2", "q_uote"]
    assert [row.path for row in rows] == ["/slides/a b.svs", "/slides/A_b.ndpi", '/slides/q"uote.svs']
    assert [row.mpp for row in rows] == ["0.250000", "", "0.250000x0.260000"]
    assert [row.extra["group"] for row in rows] == ["a_b", "A_b_2", "q_uote"]
    annotations = read_annotations(Path(rows[0].extra["annotations"]))
    assert [a.class_name for a in annotations] == ["Tumor", "Stroma", None]
    assert (folder / "annotated.tsv").read_text(encoding="utf-8").startswith("slide\tpath\tannotations\tgroup\tmpp\n")


@needs_groovy
def test_predictions_are_not_trained_on_by_mistake(tmp_path: Path) -> None:
    results = tmp_path / "results"
    write_result(results, "a", [feature(1), feature(2)])
    write_result(results, "b", [feature(3)])
    qupath = QuPath(tmp_path, [image(1, "a.svs", [feature(90)]), image(2, "b.svs"), image(3, "r.svs", [feature(7)])])
    qupath.state["images"][0]["metadata"] = {"patient": "P1"}
    qupath.state["images"][2]["rotated"] = True
    qupath.run(IMPORT, results)
    printed = qupath.run(EXPORT, tmp_path / "out")
    assert printed[0] == "a.svs: 1 annotations, 2 imported predictions left out (includeImported)"
    assert printed[1] == "b.svs: no annotations, 1 imported predictions left out (includeImported)"
    assert printed[2].startswith("r.svs: FAILED: opened rotated or cropped")
    assert qupath.state["problem"].startswith("1 images could not be exported")
    assert len(read_annotations(tmp_path / "out" / "annotations" / "a.geojson")) == 1

    script = tmp_path / "changed.groovy"
    text = (write_scripts(tmp_path / "s")[1]).read_text(encoding="utf-8")
    text = text.replace("def includeImported = false", "def includeImported = true")
    script.write_text(text.replace("def groupMetadata = ''", "def groupMetadata = 'patient'"), encoding="utf-8")
    printed = qupath.run(script, tmp_path / "all")
    assert printed[:2] == ["a.svs: 3 annotations", "b.svs: 1 annotations, no 'patient' in its metadata"]
    rows = read_slides(str(tmp_path / "all" / "annotated.tsv"))
    assert [row.extra["group"] for row in rows] == ["P1", "b"]


def test_scripts_are_written_and_no_change_is_lost(tmp_path: Path) -> None:
    paths = write_scripts(tmp_path / "new" / "folder")
    assert [path.name for path in paths] == [IMPORT, EXPORT]
    assert write_scripts(tmp_path / "new" / "folder") == paths
    paths[1].write_text("mine")
    with pytest.raises(ConfigError, match=r"export_annotations\.groovy: is there and differs.*--force"):
        write_scripts(tmp_path / "new" / "folder")
    assert paths[1].read_text() == "mine"
    write_scripts(tmp_path / "new" / "folder", force=True, results=tmp_path / "it's\\ü")
    assert "def resultsFolder = '" in paths[0].read_text(encoding="ascii")
    assert r"it\'s\\\u00fc'" in paths[0].read_text(encoding="ascii")


def test_scripts_are_ascii_and_ids_are_the_workflows(tmp_path: Path) -> None:
    """QuPath reads a script in the platform's encoding; ids of slides must be those of the results."""
    for path in write_scripts(tmp_path):
        text = path.read_text(encoding="ascii")
        assert "replaceAll(/[^A-Za-z0-9._-]+/, '_').replaceAll(/^[._-]+|[._-]+$/, '')" in text
        assert not re.search(r"[ \t]$", text, re.MULTILINE)
        assert max(map(len, text.splitlines())) <= 130
    assert safe_id("..a b/ü._") == "a_b"
