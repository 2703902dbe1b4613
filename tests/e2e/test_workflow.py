"""Batches with bad slides, reruns of what changed, and mistakes in the configuration."""

from __future__ import annotations

import json
import shutil
import subprocess
from base64 import urlsafe_b64encode
from pathlib import Path

import numpy as np
import pytest

from sampath_wsi.stores.integrity import find_damage, set_aside
from tests.geojson_validator import validate
from tests.helpers import blob_slide, write_slide

from .workflow import checkout, read_table, snakemake, snapshot

FILES = ("segmentation.geojson.gz", "segmentation.ome.zarr/zarr.json", "overlay.png", "summary.json")


# Other bad ones are in test_batch.py.
BAD = {
    "absurd": ("absurd.tif", "1000 x 1000 um/px, which no scanner has"),
    "empty": ("empty.svs", "the file is empty"),
    "folder": ("folder.svs", "this is a directory"),
    "unopenable": ("unopenable.tiff", "Unsupported TIFF compression"),
    "unreadable": ("unreadable.svs", "Bogus marker length"),
}
GOOD = {"good": "a good one (1).tif", "override": "absurd.tif", "blank": "blank.tif"}
ROWS = [
    "slide\tpath\tmpp\tpatient",
    *(f"{name}\tdata/{file}\t\tP-{name}" for name, (file, _) in BAD.items()),
    *(f"{name}\tdata/{file}\t{'0.5' if name == 'override' else ''}\tP-{name}" for name, file in GOOD.items()),
]


@pytest.fixture(scope="module")
def options(tiny_model: Path) -> tuple[str, ...]:
    return "--config", "slides=slides.tsv", f"model={tiny_model}"


@pytest.fixture(scope="module")
def first_run(
    tmp_path_factory: pytest.TempPathFactory, options: tuple[str, ...], shared_data: Path
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A working directory after a run over good slides and bad ones, which no test changes."""
    folder = checkout(tmp_path_factory.mktemp("batch") / "work")
    data = folder / "data"
    blob_slide(data / "a good one (1).tif")
    blob_slide(data / "absurd.tif", mpp=1000)
    write_slide(data / "blank.tif", np.full((300, 300, 3), 245, np.uint8))
    (data / "empty.svs").touch()
    (data / "folder.svs").mkdir()
    for name in ("unopenable.tiff", "unreadable.svs"):
        (data / name).symlink_to(shared_data / "slides" / name)
    (folder / "slides.tsv").write_text("\n".join(ROWS) + "\n")
    return folder, snakemake(folder, *options)


@pytest.fixture
def folder(first_run: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path) -> Path:
    """A copy of that directory, without the bad slides in its sheet."""
    copy = tmp_path / "work"
    shutil.copytree(first_run[0], copy, symlinks=True)
    (copy / "slides.tsv").write_text("\n".join([ROWS[0], *ROWS[-len(GOOD) :]]) + "\n")
    return copy


@pytest.mark.slow
def test_bad_slides_do_not_stop_the_others(first_run: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, done = first_run
    assert done.returncode != 0
    rows = {row["slide"]: row for row in read_table(folder / "results" / "cohort.tsv")}
    assert list(rows)[: len(BAD)] == list(BAD)
    for name, (_, reason) in BAD.items():
        assert rows[name]["status"] == "failed"
        assert reason in rows[name]["reason"]
        assert f"  {name}: tile: " in done.stdout
        assert rows[name]["patient"] == f"P-{name}"
        left = [p for p in (folder / "results" / "slides" / name).rglob("*") if p.is_file()]
        assert [p.name for p in left] == ["tile.json"], f"{name} left {left}"
    assert rows["absurd"]["reason"].endswith("Give the true value in the column 'mpp' of the sample sheet.")
    for name in GOOD:
        assert rows[name]["status"] == "ok", rows[name]
        assert all((folder / "results" / "slides" / name / file).exists() for file in FILES)
    assert rows["override"]["mpp_source"] == "sample sheet"
    assert float(rows["blank"]["tissue_mm2"]) == 0
    assert rows["blank"]["warnings"].startswith("no tissue was found")
    assert "Traceback" not in done.stderr + done.stdout


@pytest.mark.slow
def test_a_run_without_the_bad_slides_ends_well(folder: Path, options: tuple[str, ...]) -> None:
    done = snakemake(folder, *options)
    assert done.returncode == 0, done.stderr
    assert "rule tile" not in done.stderr
    assert "Nothing to be done" in snakemake(folder, *options).stderr

    # A picture was being drawn when the run was killed; the page that was made then came without it.
    for name in GOOD:
        (folder / "results" / "slides" / name / "summary.json").unlink()
    assert "rule report" in snakemake(folder, *options, "-n").stdout


@pytest.mark.slow
def test_only_what_changed_is_made_anew(folder: Path, options: tuple[str, ...]) -> None:
    (folder / "slides.tsv").write_text("\n".join([ROWS[0], ROWS[-len(GOOD)]]) + "\n")
    slide = folder / "results" / "slides" / "good"
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
        (["vectorize={objects: cells}"], "config, vectorize.objects: 'cells' cannot be used"),
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
