from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from pathlib import Path

import numpy as np
import pytest

from sampath_wsi.stores.integrity import find_damage, set_aside
from tests.geojson_validator import validate
from tests.helpers import blob_slide, write_slide

from .workflow import checkout, read_table, snakemake, snapshot

FILES = ("segmentation.geojson.gz", "segmentation.ome.zarr/zarr.json", "overlay.png", "summary.json")


@pytest.mark.slow
def test_bad_slides_do_not_stop_the_others(tmp_path: Path, tiny_model: Path, shared_data: Path) -> None:
    folder = checkout(tmp_path / "work")
    data = folder / "data"
    blob_slide(data / "a good one (1).tif")
    blob_slide(data / "nompp.tif", mpp=None)
    blob_slide(data / "absurd.tif", mpp=1000)
    write_slide(data / "blank.tif", np.full((300, 300, 3), 245, np.uint8))
    (data / "empty.svs").touch()
    (data / "folder.svs").mkdir()
    bad = {
        "nompp": (data / "nompp.tif", "its metadata hold no resolution (mpp)"),
        "absurd": (data / "absurd.tif", "1000 x 1000 um/px, which no slide has"),
        "empty": (data / "empty.svs", "the file is empty"),
        "folder": (data / "folder.svs", "this is a directory"),
        "missing": (data / "missing.svs", "there is no such slide"),
        "broken": (shared_data / "slides" / "broken.svs", "not a slide that OpenSlide knows"),
        "unopenable": (shared_data / "slides" / "unopenable.tiff", "Unsupported TIFF compression"),
        "unreadable": (shared_data / "slides" / "unreadable.svs", "Bogus marker length"),
    }
    good = {"good": data / "a good one (1).tif", "override": data / "absurd.tif", "blank": data / "blank.tif"}
    lines = ["slide\tpath\tmpp\tpatient"]
    lines += [f"{name}\t{path}\t\tP-{name}" for name, (path, _) in bad.items()]
    lines += [f"{name}\t{path}\t{'0.5' if name == 'override' else ''}\tP-{name}" for name, path in good.items()]
    (folder / "slides.tsv").write_text("\n".join(lines) + "\n")

    options = ("--config", "slides=slides.tsv", f"model={tiny_model}")
    done = snakemake(folder, *options)
    assert done.returncode != 0
    rows = {row["slide"]: row for row in read_table(folder / "results" / "cohort.tsv")}
    assert list(rows)[: len(bad)] == list(bad)
    for name, (_, reason) in bad.items():
        assert rows[name]["status"] == "failed"
        assert reason in rows[name]["reason"]
        assert f"  {name}: tile: " in done.stdout
        assert rows[name]["patient"] == f"P-{name}"
        left = [p for p in (folder / "results" / "slides" / name).rglob("*") if p.is_file()]
        assert [p.name for p in left] == ["tile.json"], f"{name} left {left}"
    for name in good:
        assert rows[name]["status"] == "ok", rows[name]
        assert all((folder / "results" / "slides" / name / file).exists() for file in FILES)
    assert rows["override"]["mpp_source"] == "sample sheet"
    assert float(rows["blank"]["tissue_mm2"]) == 0
    assert rows["blank"]["warnings"] == "no tissue was found"
    assert "Traceback" not in done.stderr + done.stdout

    # The bad slides are mended or dropped: only they are worked on, and the run ends well.
    (folder / "slides.tsv").write_text("\n".join([lines[0], *lines[-3:]]) + "\n")
    done = snakemake(folder, *options)
    assert done.returncode == 0, done.stderr
    assert "rule tile" not in done.stderr
    assert "Nothing to be done" in snakemake(folder, *options).stderr

    # A picture was being drawn when the run was killed; the page that was made then came without it.
    for name in good:
        (folder / "results" / "slides" / name / "summary.json").unlink()
    assert "rule report" in snakemake(folder, *options, "-n").stdout


@pytest.mark.slow
def test_only_what_changed_is_made_anew(tmp_path: Path, tiny_model: Path) -> None:
    folder = checkout(tmp_path / "work")
    blob_slide(folder / "data" / "a.tif")
    options = ("--config", "slides=data/*.tif", f"model={tiny_model}")
    assert snakemake(folder, *options).returncode == 0
    slide = folder / "results" / "slides" / "a"
    before = snapshot(slide)
    assert not (slide / "tiles.zarr").exists()
    assert not any("partial" in name for name in before)

    # Another tolerance: the polygons alone. Pictures that were not asked for before are made besides.
    done = snakemake(
        folder, *options, "vectorize={tolerance: 0, tiles: true}", "images={tiff: true, probability: Stroma}"
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in slide.glob("*.tif")) == ["classes.ome.tif", "probability.ome.tif"]
    assert validate(slide / "tiles.geojson.gz") == []
    assert "rule vectorize" in done.stderr
    assert "rule infer" not in done.stderr
    assert "rule stitch" not in done.stderr

    # Back to the first options: the same bytes. Besides, a map was damaged and set aside, and Snakemake had been killed
    # before it learnt of the end of inference: nothing is computed again.
    unknown = urlsafe_b64encode(f"{(slide / 'probabilities.zarr' / 'zarr.json').relative_to(folder)}".encode())
    (folder / ".snakemake" / "incomplete" / unknown.decode()).touch()
    store = slide / "segmentation.ome.zarr"
    (shard, *_) = (path for path in (store / "0" / "c").rglob("*") if path.is_file())
    shard.write_bytes(bytes(len(shard.read_bytes())))
    set_aside(store, find_damage(store))
    done = snakemake(folder, *options)
    assert done.returncode == 0, done.stderr
    assert "rule stitch" in done.stderr
    assert json.loads((slide / "run" / "infer.json").read_text())["computed"] == 0
    after = snapshot(slide)
    same = [name for name in before if "run/" not in name and name != "summary.json"]
    assert [name for name in same if before[name] != after[name]] == []
    assert json.loads(after["summary.json"])["classes"] == json.loads(before["summary.json"])["classes"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (["slides=none.tsv"], "none.tsv: there is no such sample sheet"),
        (["slides=none/*.svs"], "nothing matches 'none/*.svs'"),
        (["modell=demo"], "there is no key 'modell'; is 'model' meant?"),
        (["model=demoo"], "there is no model 'demoo'"),
        (["vectorize={objects: cells}"], "config, vectorize.objects: 'cells' is not one of"),
        (["images={probability: Tumour}"], "config, images.probability: the model knows no class 'Tumour'"),
    ],
)
def test_mistakes_in_the_configuration_are_named_at_once(tmp_path: Path, config: list[str], message: str) -> None:
    folder = checkout(tmp_path / "work")
    done = snakemake(folder, "--config", *config)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "results").exists()
