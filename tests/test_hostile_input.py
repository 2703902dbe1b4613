"""Damaged and malicious inputs end with success or one line, within bounded time and memory, and run nothing."""

from __future__ import annotations

import csv
import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
import shapely
import tifffile

from sampath_wsi.classes import TissueClass
from sampath_wsi.cohort.table import read_cohort, write_cohort
from sampath_wsi.errors import AnnotationError, ConfigError, ModelError, SampathError, SlideError
from sampath_wsi.files import write_json
from sampath_wsi.geometry import Box
from sampath_wsi.model.card import ModelCard
from sampath_wsi.options import VectorizeOptions
from sampath_wsi.qupath import encode_object, read_annotations
from sampath_wsi.runs.sheet import SheetRow
from sampath_wsi.slides import SlideReader, inspect_slide
from sampath_wsi.slides.jpeg import find_jpeg_tiles
from sampath_wsi.tissue.detection import TissueOptions
from sampath_wsi.tissue.mask import find_tissue

from .conftest import ROOT
from .helpers import blob_slide, make_grid, write_slide

CASES = {
    "slides": 60,
    "annotations": 200,
    "sheets": 200,
    "configs": 60,
    "cards": 50,
    "weights": 60,
    "checkpoints": 150,
    "pictures": 200,
}


@pytest.mark.parametrize("kind", CASES)
def test_damaged_inputs(tmp_path: Path, shared_data: Path, kind: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    command = [sys.executable, "-m", "tests.hostile.run", kind, str(CASES[kind]), str(folder), str(shared_data)]
    # A forked child does not have the threads of the process that it was forked from.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stderr
    *findings, (total, _, counts) = map(json.loads, done.stdout.splitlines())
    assert findings == []
    assert sum(counts.values()) == total == CASES[kind]
    # Neither so weak that everything passes, nor so strong that everything fails at once.
    assert counts["success"] >= CASES[kind] // 50
    assert counts["error"] >= CASES[kind] // 10


def test_messages_are_one_short_line_that_moves_no_cursor() -> None:
    text = str(SampathError("a\n\x1b[2J\udce9\u202e" + "x" * 10_000, "Do this."))
    assert text.startswith(r"a \x1b[2J\udce9\u202exxx")
    assert text.endswith("xxx. Do this.")
    assert len(text) <= 2000


def test_file_names_that_are_no_utf8_are_written_as_json(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"file": "caf\udce9.svs"})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"file": "caf\udce9.svs"}


def test_tables_hold_no_formulas_and_keep_their_own_columns(tmp_path: Path) -> None:
    extra = {"status": "ok", "tiles": "7", "=x": "=1+1", "note": "a\tb", "tag": "@x", "dose": "-1.5e3", "less": "-x"}
    write_cohort(read_cohort([SheetRow(slide="a", path="a.tif", extra=extra)], tmp_path), tmp_path / "cohort.tsv")
    with open(tmp_path / "cohort.tsv", newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file, delimiter="\t")
    assert (row["slide"], row["status"], row["status (sheet)"], row["tiles (sheet)"]) == ("a", "failed", "ok", "7")
    assert (row["'=x"], row["note"], row["tag"], row["dose"], row["less"]) == ("'=1+1", "a\tb", "'@x", "-1.5e3", "'-x")


def jpeg_slide(path: Path) -> Path:
    rgb = np.random.default_rng(0).integers(100, 250, (300, 400, 3), dtype=np.uint8)
    size: Any = {"resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, rgb, tile=(128, 128), photometric="rgb", compression="jpeg", metadata=None, **size)
    return path


def with_field(path: Path, tag: str, value: int, page: int = 0) -> Path:
    """The same TIFF with another 32-bit number at the beginning of a tag's value."""
    with tifffile.TiffFile(path) as tiff:
        offset = tiff.pages[page].tags[tag].valueoffset
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, offset, value)
    path.write_bytes(data)
    return path


def test_slides_that_openslide_would_die_of_are_refused(tmp_path: Path) -> None:
    tiles = with_field(jpeg_slide(tmp_path / "a.tif"), "TileWidth", 1 << 30)
    with pytest.raises(SlideError, match="level 0 says that its tiles have 1073741824 x 128 px"):
        inspect_slide(tiles)
    rgb = np.full((300, 400, 3), 200, np.uint8)
    level = with_field(write_slide(tmp_path / "b.tif", rgb, levels=2), "ImageLength", 1 << 24, page=1)
    with pytest.raises(SlideError, match=r"level 1 says that it has 200 x 16777216 px, .* proportions"):
        inspect_slide(level)


def test_tables_of_another_type_are_left_to_openslide(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(100, 250, (300, 400, 3), dtype=np.uint8)
    size: Any = {"resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER", "metadata": None}
    numbers = [(347, "H", 4, (1, 2, 3, 4), True)]
    tifffile.imwrite(
        tmp_path / "a.tif", rgb, tile=(128, 128), photometric="rgb", compression="jpeg", extratags=numbers, **size
    )
    info = inspect_slide(tmp_path / "a.tif")
    assert find_jpeg_tiles(info) == {}


def test_a_tile_that_claims_to_be_longer_than_the_file_is_named(tmp_path: Path) -> None:
    slide = with_field(jpeg_slide(tmp_path / "a.tif"), "TileByteCounts", 2**31)
    with SlideReader(inspect_slide(slide)) as reader, pytest.raises(SlideError, match=r"a\.tif: cannot read tile 0"):
        reader.read(Box(0, 0, 64, 64), (64, 64), what="tile 0")


def test_resolutions_that_no_slide_has_do_not_fill_the_memory(tmp_path: Path) -> None:
    slide = blob_slide(tmp_path / "a.tif")
    for mpp in (1e-6, 1e6, float("inf")):
        with pytest.raises(SlideError, match=r"the sample sheet gives .* um/px, which no scanner has"):
            inspect_slide(slide, mpp=(mpp, 0.5))
    with pytest.raises(ConfigError, match="would be cut into"):
        make_grid((10**7, 10**7), mpp=(100.0, 100.0))
    with (
        SlideReader(inspect_slide(slide)) as reader,
        pytest.raises(SlideError, match=r"tissue mask at 0.0001 um/px would have"),
    ):
        find_tissue(reader, make_grid((600, 600), mpp=(0.5, 0.5)), TissueOptions(mpp=1e-4))


def test_what_is_too_large_to_read_at_once_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = inspect_slide(jpeg_slide(tmp_path / "a.tif"))
    boxes = (Box(-20, 4, 400, 320), (100, 80)), (Box(3.3, 5.7, 300.5, 200.25), (70, 60))
    whole = [SlideReader(info).read(box, size) for box, size in boxes]
    monkeypatch.setattr("sampath_wsi.slides.reader._MAX_READ_PX", 100)
    monkeypatch.setattr("sampath_wsi.slides.reader._OVERVIEW_READ_PX", 64)
    reader = SlideReader(info)
    reader.expect([boxes[0][0]], boxes[0][1])
    pieces = [reader.read(box, size) for box, size in boxes]
    assert np.array_equal(pieces[0], whole[0])
    # Where pixels are interpolated, rounding differs.
    assert np.abs(pieces[1].astype(int) - whole[1]).max() <= 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"std": [0, 1, 1]}, "std.0: Input should be greater than 0"),
        ({"mean": [1e999, 0, 0]}, "mean.0: Input should be a finite number"),
        ({"mpp": 1e-9}, "mpp: Input should be greater than"),
        ({"tile_px": 2**40}, "tile_px: Input should be less than"),
        ({"kwargs": {"checkpoint_path": "evil.pth"}}, "'checkpoint_path' would make timm load files"),
        ({"kwargs": {"pretrained": True}}, "'pretrained' would make timm load files"),
    ],
)
def test_cards_that_would_fill_the_memory_or_load_files(
    tmp_path: Path, tiny_model: Path, change: dict[str, Any], message: str
) -> None:
    card = json.loads((tiny_model / "card.json").read_text())
    if "kwargs" in change:
        card["architecture"]["pathology"] |= change
    else:
        card |= change
    (tmp_path / "card.json").write_text(json.dumps(card))
    with pytest.raises(ModelError) as error:
        ModelCard.read(tmp_path / "card.json")
    assert message in str(error.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "nan", True, -1])
def test_an_option_that_is_no_amount_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match=r"options.*min_area"):
        VectorizeOptions.of({"min_area": value}, "options")


@pytest.mark.parametrize("text", ['{"type": {}}', '{"type": "Point", "coordinates": [1%s, 0]}' % ("0" * 400)])
def test_annotations_that_are_no_geojson(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.geojson").write_text(text)
    with pytest.raises(AnnotationError, match=r"a\.geojson: "):
        read_annotations(tmp_path / "a.geojson")


def test_names_of_classes_are_escaped_in_geojson() -> None:
    name = '=</script>"\\},{é'
    tissue_class = TissueClass(name=name, color=(1, 2, 3))
    written = encode_object(
        shapely.box(0, 0, 4, 4),
        uuid=UUID(int=1),
        tissue_class=tissue_class,
        object_type="annotation",
        name=name,
        measurements={name: 1.0},
    )
    properties = json.loads(written)["properties"]
    assert properties["classification"]["name"] == properties["name"] == name
    assert properties["measurements"] == {name: 1.0}
    with pytest.raises(ValueError, match="control characters"):
        TissueClass(name="a\nb", color=(1, 2, 3))
