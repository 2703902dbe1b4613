from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from sampath_wsi.errors import AnnotationError, SlideError
from sampath_wsi.slides import SlideReader, inspect_slide
from sampath_wsi.stages import tile as tiling
from sampath_wsi.stages.tile import TileOptions, TileRequest, tile_slide
from sampath_wsi.stores.store import open_store, read_array
from sampath_wsi.tissue.detection import TissueOptions, soft_mask
from tests.helpers import SPEC, blob_slide, make_grid, write_slide

SMALL = TissueOptions(mpp=4.0, min_area_um2=500, min_hole_um2=500)


def tiled(  # type: ignore[no-untyped-def]
    path: Path, out: Path, *, mask_path: Path | None = None, roi_path: Path | None = None, threads: int = 2, **options
):
    request = TileRequest(inspect_slide(path), "a", SPEC, TileOptions(**options), mask_path, roi_path)
    return tile_slide(request, out, threads=threads)


def test_tiles_cover_the_tissue_and_hold_its_pixels(tmp_path: Path) -> None:
    path = blob_slide(tmp_path / "s.tif")
    result = tiled(path, tmp_path / "tiles.zarr")
    group, made_by = open_store(tmp_path / "tiles.zarr", "tiles")
    grid, rgb = made_by.grid, read_array(group, "rgb")
    assert rgb.shape == (result.tiles, 64, 64, 3)
    whole = np.asarray(SlideReader(inspect_slide(path)).overview(_whole(path), (600, 600)))
    covered = np.zeros((700, 700), bool)
    for position, tile in enumerate(grid.tiles):
        box = grid.tile_box_level0_px(tile)
        x, y = round(box.x), round(box.y)
        part = whole[y : y + 64, x : x + 64]
        assert (rgb[position][: part.shape[0], : part.shape[1]] == part).all()
        covered[y : y + 64, x : x + 64] = True
    assert covered[:600, :600][whole[..., 1] < 200].all()
    assert result.tiles < grid.rows * grid.columns
    assert result.tissue_um2 == pytest.approx(np.pi * 100**2, rel=0.05)


def _whole(path: Path):  # type: ignore[no-untyped-def]
    from sampath_wsi.geometry import Box

    return Box(0, 0, *inspect_slide(path).size_level0_px)


def test_an_interrupted_run_goes_on_and_a_second_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, out = blob_slide(tmp_path / "s.tif"), tmp_path / "tiles.zarr"
    tiled(path, out, threads=1)
    undisturbed = {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert tiled(path, out).reused

    again = tmp_path / "again.zarr"
    original, reads = SlideReader.read, []

    def failing(self, box, size, *, what="a region", out=None):  # type: ignore[no-untyped-def]
        reads.append(what)
        if len(reads) == 40:
            raise SlideError("interrupted")
        return original(self, box, size, what=what, out=out)

    monkeypatch.setattr(SlideReader, "read", failing)
    with pytest.raises(SlideError, match="interrupted"):
        tiled(path, again, threads=1)
    assert not again.exists()
    first = sum(name.startswith("tile") for name in reads)
    tiled(path, again, threads=1)
    second = sum(name.startswith("tile") for name in reads) - first
    count = sum(1 for _ in open_store(out, "tiles")[1].grid.tiles)
    assert second < count
    assert {p.relative_to(again): p.read_bytes() for p in again.rglob("*") if p.is_file()} == undisturbed


def test_threads_do_not_change_the_store(tmp_path: Path) -> None:
    path = blob_slide(tmp_path / "s.tif")
    contents = []
    for threads in (1, 3):
        out = tmp_path / f"{threads}.zarr"
        tiled(path, out, threads=threads)
        contents.append({p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()})
    assert contents[0] == contents[1]


def test_wide_slides_are_written_stripe_by_stripe(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = make_grid(size=(2000, 400), mpp=(0.5, 0.5))
    assert (grid.rows, grid.columns) == (8, 42)
    monkeypatch.setattr(tiling, "_STRIPE_LEVEL0_PX", 20 * 48)
    order = tiling._in_stripes(grid, range(0, len(grid.tiles), 4))
    assert sorted(order) == list(range(0, len(grid.tiles), 4))
    stripes = [grid.row_column(first)[1] // 20 for first in order]
    assert stripes == sorted(stripes)
    assert set(stripes) == {0, 1, 2}
    assert all(a < b for a, b, s, t in zip(order, order[1:], stripes, stripes[1:], strict=False) if s == t)


def test_a_blank_slide_is_an_outcome(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    blank = np.clip(rng.normal(240, 1.5, (400, 400, 3)), 0, 255).astype(np.uint8)
    result = tiled(write_slide(tmp_path / "s.tif", blank), tmp_path / "tiles.zarr")
    assert result.tiles == 0
    assert result.warnings[0] == "no tissue was found"
    assert read_array(open_store(tmp_path / "tiles.zarr", "tiles")[0], "rgb").shape == (0, 64, 64, 3)


def test_pale_tissue_beside_dark_tissue_is_found() -> None:
    rgb = np.full((200, 200, 3), 242, np.uint8)
    rgb[20:80, 20:80] = (90, 40, 120)
    rgb[120:180, 120:180] = (240, 222, 234)
    found = soft_mask(rgb, SMALL) >= 0.5
    assert found[25:75, 25:75].all()
    assert found[125:175, 125:175].all()
    assert found.mean() == pytest.approx(2 * 60 * 60 / 200**2, rel=0.1)


def test_pale_texture_is_tissue_and_noise_on_glass_is_not() -> None:
    rng = np.random.default_rng(0)
    rgb = np.full((300, 300, 3), 242, np.uint8)
    rgb[:150, 150:] -= 4  # the next stripe of the scanner, a little darker
    rgb[250, 30] = 180  # dust
    mucin = rng.normal(236, 5, (80, 80, 1)).clip(0, 250)
    for noise, found_share in ((1.0, 80**2 / 300**2), (5.0, 0.0)):
        picture = rgb + rng.normal(0, noise, rgb.shape)
        picture[180:260, 180:260] = mucin + rng.normal(0, noise, (80, 80, 3))
        found = soft_mask(picture.clip(0, 255).astype(np.uint8), SMALL) >= 0.5
        assert found.mean() == pytest.approx(found_share, abs=0.01)
        assert found[190:250, 190:250].all() == (found_share > 0)


def test_pale_stroma_is_not_the_colour_of_the_glass() -> None:
    rng = np.random.default_rng(0)
    rgb = np.empty((200, 200, 3), np.uint8)
    rgb[:] = (239, 205, 233)
    rgb[:20] = 243
    rgb[100:, :100] = (150, 80, 140)
    found = soft_mask((rgb + rng.normal(0, 1, rgb.shape)).astype(np.uint8), SMALL) >= 0.5
    assert found[22:].all()
    assert not found[:18].any()


def test_dust_is_dropped_and_small_holes_are_filled() -> None:
    rgb = np.full((200, 200, 3), 242, np.uint8)
    rgb[50:150, 50:150] = (200, 120, 170)
    rgb[100:103, 100:103] = 242
    rgb[10:13, 10:13] = (60, 60, 60)
    found = soft_mask(rgb, SMALL) >= 0.5
    assert not found[:40, :40].any()
    assert found[55:145, 55:145].all()


def test_a_small_gap_at_the_edge_of_the_picture_is_no_hole() -> None:
    rgb = np.full((200, 200, 3), 242, np.uint8)
    rgb[:, 100:] = (200, 120, 170)
    rgb[100:106, 194:] = 242
    found = soft_mask(rgb, SMALL) >= 0.5
    assert not found[102:104, 197:].any()
    assert found[20:90, 105:].all()


def test_a_mask_image_replaces_detection(tmp_path: Path) -> None:
    path = blob_slide(tmp_path / "s.tif")
    mask = np.zeros((60, 60), np.uint8)
    mask[:30] = 1
    Image.fromarray(mask).save(tmp_path / "mask.png")
    result = tiled(path, tmp_path / "tiles.zarr", mask_path=tmp_path / "mask.png")
    assert result.tissue_um2 == pytest.approx(300 * 150, rel=0.05)
    Image.fromarray(mask[:, :20]).save(tmp_path / "narrow.png")
    with pytest.raises(
        AnnotationError, match=r"narrow\.png: a tissue mask of 20 x 60 px does not have the proportions"
    ):
        tiled(path, tmp_path / "other.zarr", mask_path=tmp_path / "narrow.png")


def test_annotations_limit_the_region(tmp_path: Path) -> None:
    path = blob_slide(tmp_path / "s.tif")
    region = tmp_path / "region.geojson"
    square = "[[[200, 200], [300, 200], [300, 300], [200, 300], [200, 200]]]"
    region.write_text(
        '{"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {"objectType": "annotation"}, '
        f'"geometry": {{"type": "Polygon", "coordinates": {square}}}}}]}}'
    )
    result = tiled(path, tmp_path / "tiles.zarr", tissue_mpp=2, roi_path=region)
    assert result.tissue_um2 == pytest.approx(50 * 50, rel=0.1)
    assert 0 < result.tiles <= 16


def square(left: int, top: int, side: int, name: str | None = None, kind: str = "annotation") -> dict[str, object]:
    right, bottom = left + side, top + side
    ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
    properties = {"objectType": kind, "classification": name and {"name": name}, "measurements": {"a": float("nan")}}
    return {
        "type": "Feature",
        "id": "x",
        "properties": properties,
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }


@pytest.mark.parametrize(
    ("drawn", "um2", "warnings"),
    [
        ([square(0, 0, 200), square(200, 200, 80, kind="detection")], 100**2, ["1 are no annotations: left out"]),
        ([square(0, 0, 400, "Region*"), square(40, 40, 200, "Ignore*")], 200**2 - 100**2, []),
        ([square(40, 40, 200, "Ignore*"), square(0, 0, 100, "Region*")], 50**2 - 30**2, []),
        ([square(0, 0, 100, "Region*"), square(200, 200, 80, "Tumor")], 50**2, []),
        ([square(0, 0, 100, "Region*: a"), square(60, 0, 100, "Region*")], 50 * 80, []),
        ([square(0, 0, 200, "Tumor: Positive"), square(0, 0, 40, "Ignore*")], 100**2 - 20**2, []),
        ([square(0, 0, 200, "Ignore*")], 200**2 - 100**2, []),
        ([square(0, 0, 200), {**square(0, 0, 9), "geometry": None}], 100**2, ["1 cannot be read: left out"]),
        ([square(0, 0, 200), square(9000, 0, 9)], 100**2, ["1 lie outside the slide: left out"]),
    ],
)
def test_roi_follows_the_rules_of_qupath(
    tmp_path: Path, drawn: list[dict[str, object]], um2: float, warnings: list[str]
) -> None:
    path = blob_slide(tmp_path / "s.tif", size=400)
    (tmp_path / "roi.geojson").write_text(json.dumps(drawn))
    result = tiled(path, tmp_path / "tiles.zarr", tissue=False, tissue_mpp=2, roi_path=tmp_path / "roi.geojson")
    assert result.tissue_um2 == pytest.approx(um2, rel=1e-6)
    told = [found for found in result.warnings if "roi.geojson" in found]
    assert all(wanted in found for wanted, found in zip(warnings, told, strict=True))


def test_roi_that_is_not_on_the_slide_is_refused(tmp_path: Path) -> None:
    path = blob_slide(tmp_path / "s.tif", size=400)
    (tmp_path / "roi.geojson").write_text(json.dumps([square(0, 0, 20, kind="cell"), square(9000, 0, 20)]))
    with pytest.raises(AnnotationError, match=r"roi\.geojson: of its 2 objects none is an area on s\.tif \(1 are no"):
        tiled(path, tmp_path / "tiles.zarr", roi_path=tmp_path / "roi.geojson")


def test_a_slide_coarser_than_the_model_is_tiled_with_a_warning(tmp_path: Path) -> None:
    path = blob_slide(tmp_path / "s.tif", size=200, mpp=2.0)
    result = tiled(path, tmp_path / "tiles.zarr")
    assert "4 times coarser" in result.warnings[0]


def test_a_slide_without_colour_is_tiled_with_a_warning(tmp_path: Path) -> None:
    coloured = np.full((1200, 1200, 3), 245, np.uint8)
    coloured[200:800, 200:800] = (200, 120, 170)
    grey = np.repeat(coloured[..., 1:2], 3, axis=2)
    assert tiled(write_slide(tmp_path / "c.tif", coloured), tmp_path / "c.zarr").warnings == ()
    (warning,) = tiled(write_slide(tmp_path / "g.tif", grey), tmp_path / "g.zarr").warnings
    assert "has no colour" in warning


def test_the_tissue_share_of_a_mask_and_none_without_detection(tmp_path: Path) -> None:
    path = blob_slide(tmp_path / "s.tif", size=1200)
    Image.fromarray(np.full((60, 60), 255, np.uint8)).save(tmp_path / "m.png")
    (warning,) = tiled(path, tmp_path / "m.zarr", mask_path=tmp_path / "m.png").warnings
    assert "100.0 % of the slide is tissue, over 95 %" in warning
    assert tiled(path, tmp_path / "all.zarr", tissue=False).warnings == ()


def test_more_magnification_must_be_allowed(tmp_path: Path) -> None:
    path, out = blob_slide(tmp_path / "s.tif", size=200, mpp=2.1), tmp_path / "tiles.zarr"
    with pytest.raises(SlideError, match=r"\(2\.1 um/px\) is 4\.2 times coarser .* tile\.max_magnification is 4\.$"):
        tiled(path, out)
    assert not out.exists()
    assert "4.2 times coarser" in tiled(path, out, max_magnification=4.2).warnings[0]
    # It decides whether there is a result, not about it.
    assert tiled(path, out, max_magnification=5).reused


def test_a_disk_without_room_is_named_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = blob_slide(tmp_path / "s.tif"), tmp_path / "new" / "tiles.zarr"
    tiles = tiled(path, tmp_path / "other.zarr").tiles
    needed = tiles * 64 * 64 * 3 * 0.9
    monkeypatch.setattr(tiling.shutil, "disk_usage", lambda folder: SimpleNamespace(free=needed - 1))
    with pytest.raises(SlideError, match=rf"{tiles} tiles take about {needed / 1e9:.3g} GB, and {tmp_path} has"):
        tiled(path, out)
    assert not out.parent.exists()
    monkeypatch.setattr(tiling.shutil, "disk_usage", lambda folder: SimpleNamespace(free=needed + 1))
    assert tiled(path, out).tiles == tiles


def test_fluorescence_is_tiled_with_a_warning(tmp_path: Path) -> None:
    dark = np.zeros((200, 200, 3), np.uint8)
    dark[50:90, 50:90] = (20, 60, 250)
    result = tiled(write_slide(tmp_path / "s.tif", dark), tmp_path / "tiles.zarr")
    assert "fluorescence" in result.warnings[0]


def test_a_tile_that_cannot_be_read_is_named(tmp_path: Path, shared_data: Path) -> None:
    with pytest.raises(SlideError, match=r"unreadable\.svs: cannot read tile 0 \(row 0, column 0\)"):
        tiled(shared_data / "slides" / "unreadable.svs", tmp_path / "tiles.zarr", tissue=False)
    assert not (tmp_path / "tiles.zarr").exists()
