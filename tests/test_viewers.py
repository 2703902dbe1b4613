"""The OME-Zarr as its readers show it, and what docs/viewers.md says of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from ome_zarr.io import parse_url
from ome_zarr.reader import Multiscales, Node, Reader

from sampath_wsi.options import StitchOptions
from sampath_wsi.stages.stitch.stage import stitch
from sampath_wsi.stores.store import open_store

from .conftest import ROOT
from .helpers import CLASSES, make_grid, random_probability, write_probabilities

NAMES = ["class 0", "class 1", "class 2"]
PURE = [(200 / 255, 0, 0), (0, 200 / 255, 0), (0, 0, 200 / 255)]


@pytest.fixture(scope="module", params=["uint8", "float32"])
def segmentation(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As of a slide whose bounds begin at (400, 200): 500 x 600 map pixels of 2 um."""
    rng = np.random.default_rng(0)
    grid = make_grid((5000, 4300), (0.25, 0.3), tile=512, overlap=64, region=(400, 200, 4000, 4000))
    folder = tmp_path_factory.mktemp("viewers") / "results" / "slides" / "demo"
    probability = random_probability(rng, len(grid.tiles), 3, grid.tile_map_px)
    path = write_probabilities(folder / "probabilities.zarr", grid, probability)
    stitch(path, folder / "segmentation.ome.zarr", StitchOptions(dtype=request.param))
    return folder / "segmentation.ome.zarr"


def um_on_the_slide(grid: Any, y: int, x: int) -> NDArray[np.float64]:
    """(y, x) of the centre of a map pixel, when the centre of the slide's first pixel is at 0."""
    scale_x, scale_y, left, top = grid.map_to_level0_px()
    level0_px = np.array([top + (y + 0.5) * scale_y, left + (x + 0.5) * scale_x]) - 0.5
    return level0_px * [grid.mpp_y, grid.mpp_x]


def images(nodes: list[Node]) -> list[Node]:
    return [node for node in nodes if any(isinstance(spec, Multiscales) for spec in node.specs)]


def test_ome_zarr_reads_image_and_labels(segmentation: Path) -> None:
    location = parse_url(segmentation)
    assert location is not None
    image, labels = images(list(Reader(location)()))
    group, made_by = open_store(segmentation, "segmentation")

    assert image.metadata["channel_names"] == NAMES
    most = 1 if made_by.options["dtype"] == "float32" else 255
    assert image.metadata["contrast_limits"] == [[0, most]] * 3
    assert image.metadata["colormap"] == [[[0, 0, 0], list(colour)] for colour in PURE]
    assert [axis.get("unit") for axis in image.metadata["axes"]] == [None, "micrometer", "micrometer"]
    assert [level.shape for level in image.data] == [(3, 600, 500), (3, 300, 250), (3, 150, 125)][: len(image.data)]
    assert (image.data[0][:, 100:110].compute() == group["0"][:, 100:110]).all()  # type: ignore[index]

    assert labels.metadata["properties"] == {value: {"class": name} for value, name in enumerate(NAMES, 1)}
    colours = {value: [c / 255 for c in entry["color"]] for value, entry in enumerate(CLASSES, 1)}  # type: ignore[attr-defined]
    assert {value: colour[:3] for value, colour in labels.metadata["color"].items()} == colours
    assert (labels.data[0].compute() == group["labels/classes/0"][:]).all()  # type: ignore[index]

    for node in (image, labels):
        scale, translation = (step[step["type"]] for step in node.metadata["coordinateTransformations"][0])
        for y, x in ((0, 0), (599, 499), (17, 301)):
            found = np.array(translation[-2:]) + np.array([y, x]) * scale[-2:]
            assert found == pytest.approx(um_on_the_slide(made_by.grid, y, x))


def test_a_dark_class_can_be_seen_on_black() -> None:
    from sampath_wsi.stores.pyramid import bright

    assert bright((50, 50, 50)) == (160, 160, 160)
    assert bright((0, 0, 80)) == (0, 0, 160)
    assert bright((0, 0, 0)) == (160, 160, 160)
    for seen in ((200, 0, 0), (255, 200, 0), (160, 90, 160)):
        assert bright(seen) == seen


def code_of(page: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text()
    return re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def test_the_code_of_the_documentation_runs(
    segmentation: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(segmentation.parents[3])
    group, made_by = open_store(segmentation, "segmentation")
    names: dict[str, Any] = {}
    for code in code_of("viewers.md"):
        if "viewer." not in code:
            exec(compile(code, "docs/viewers.md", "exec"), names)
    assert names["corner_um"](segmentation) == pytest.approx(um_on_the_slide(made_by.grid, 0, 0))
    said = capsys.readouterr().out
    # The middle of the map, 500 x 600, and the pixel of the slide that was asked for.
    level0 = um_on_the_slide(made_by.grid, 300, 250)[::-1] / [0.25, 0.3] + 0.5
    assert f"({level0[0]:.1f}" in said.replace("np.float64(", "(").replace("((", "(")
    label = group["labels/classes/0"][int((3000 - 200) * 0.3 / 2), int((4000 - 400) * 0.25 / 2)]  # type: ignore[index]
    assert f"\n{NAMES[label - 1]}\n" in said
    assert "% of the tissue is doubtful" in said


def test_napari_shows_a_layer_a_class_and_the_labels(segmentation: Path) -> None:
    """With a napari in an environment of its own: it brings plugins for pytest."""
    python = Path(os.environ.get("NAPARI_PYTHON", ROOT / ".venv-viewers" / "bin" / "python"))
    if not python.exists():
        pytest.skip("napari is not installed (make test-viewers)")
    _, made_by = open_store(segmentation, "segmentation")
    names: dict[str, Any] = {}
    exec(next(code for code in code_of("viewers.md") if "def corner_um" in code), names)
    words = [python, Path(__file__).with_name("napari_reader.py"), segmentation]
    corner = json.dumps(list(names["corner_um"](segmentation)))
    done = subprocess.run([*map(str, words), corner], capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stderr
    *layers, labels = json.loads(done.stdout.splitlines()[-1])
    assert [layer["kind"] for layer in (*layers, labels)] == ["Image"] * 3 + ["Labels"]
    assert [layer["name"] for layer in layers] == [f"a: {name}" for name in NAMES]
    assert [layer["limits"] for layer in layers] == [[0, 1 if made_by.options["dtype"] == "float32" else 255]] * 3
    assert np.allclose([layer["brightest"] for layer in layers], PURE)
    assert labels["classes"] == NAMES
    for value, entry in enumerate(CLASSES, 1):
        assert labels["colours"][str(value)] == pytest.approx([*(c / 255 for c in entry["color"]), 1], abs=0.01)  # type: ignore[attr-defined]
    for layer in (*layers, labels):
        assert layer["units"] == ["micrometer"] * 2
        for found, (y, x) in zip(layer["corners_um"], ((0, 0), (599, 499)), strict=True):
            assert found == pytest.approx(um_on_the_slide(made_by.grid, y, x))
