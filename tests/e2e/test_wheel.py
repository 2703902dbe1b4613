"""The wheel carries the workflow: built, installed aside, and run from an empty folder as its user would."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.geojson_validator import validate
from tests.helpers import blob_slide

from .workflow import ROOT, read_table

TREE = ("pyproject.toml", "README.md", "LICENSE", "Snakefile", "workflow", "config", "envs", "sampath_wsi")
LINKED = ("Snakefile", "workflow", "config", "envs")
JUNK = shutil.ignore_patterns("__pycache__", ".*", "*.pyc")


def run(*words: object, cwd: Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A command in a folder, with the packages of another in front of all others."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "SAMPATH"))}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    return subprocess.run(
        [str(word) for word in words], cwd=cwd, env=environment, capture_output=True, text=True, timeout=3600
    )


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout: building writes into it."""
    tree = tmp_path_factory.mktemp("tree")
    for name in TREE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=JUNK)
        else:
            shutil.copy(ROOT / name, tree / name)
    return tree


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the sdist."""
    folder = tmp_path_factory.mktemp("wheel")
    build = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    done = run(sys.executable, "-c", build, folder, cwd=tree)
    assert done.returncode == 0, done.stderr
    (sdist,) = folder.glob("*.tar.gz")
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder)
    done = run(sys.executable, "-m", "pip", "wheel", *options, sdist, cwd=folder)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the wheel is installed into."""
    folder = tmp_path_factory.mktemp("installed")
    options = ("--quiet", "--no-deps", "--no-index", "--no-compile", "--target", folder)
    done = run(sys.executable, "-m", "pip", "install", *options, wheel, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def files_below(folder: Path) -> set[str]:
    """Relative paths of all files, without those that a package's links to the workflow lead to."""
    linked = [folder / "_workflow" / name for name in LINKED]
    found = (path for path in folder.rglob("*") if path.is_file() and path.parent.name != "__pycache__")
    return {str(path.relative_to(folder)) for path in found if not {path, *path.parents} & set(linked)}


@pytest.mark.slow
def test_the_wheel_has_every_file(tree: Path, wheel: Path, installed: Path) -> None:
    package = installed / "sampath_wsi"
    assert files_below(package) == files_below(tree / "sampath_wsi")
    for name in LINKED:
        original, copy = tree / name, package / "_workflow" / name
        assert copy.is_file() if original.is_file() else files_below(copy) == files_below(original) != set()
    assert not any(path.is_symlink() for path in package.rglob("*"))
    assert os.access(package / "_workflow" / "workflow" / "profiles" / "lsf" / "submit.sh", os.X_OK)
    with zipfile.ZipFile(wheel) as archive:
        top = {name.split("/")[0] for name in archive.namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == {"sampath_wsi"}


@pytest.mark.slow
def test_run_outside_a_checkout(tmp_path: Path, installed: Path, tiny_model: Path) -> None:
    blob_slide(tmp_path / "x" / "a good one.tif")
    (tmp_path / "x" / "empty.svs").touch()
    program = (installed / "bin" / "sampath-wsi", "run", "--model", tiny_model, "--out", "res", "--cores", "2")
    dry = run(*program, "--slides", "x/*", "--dry-run", cwd=tmp_path, path=installed)
    assert dry.returncode == 0, dry.stderr
    assert "a_good_one  tile, infer, stitch, vectorize, report" in dry.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["x"]

    done = run(*program, "--slides", "x/*", cwd=tmp_path, path=installed)
    assert done.returncode == 2, done.stderr
    assert "1 of 2 slides are done" in done.stdout
    assert f"  empty: tile: {tmp_path}/x/empty.svs: the file is empty" in done.stdout
    assert "empty: tile FAILED:" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "sampath-wsi: " not in done.stderr
    rows = {row["slide"]: row["status"] for row in read_table(tmp_path / "res" / "cohort.tsv")}
    assert rows == {"empty": "failed", "a_good_one": "ok"}
    assert validate(tmp_path / "res" / "slides" / "a_good_one" / "segmentation.geojson.gz") == []
    # The workflow was the one in the wheel.
    log = "".join(path.read_text() for path in (tmp_path / "res" / ".snakemake" / "log").iterdir())
    assert f"{installed}/sampath_wsi/_workflow/workflow/rules/segment.smk" in log
    assert f"{ROOT}/sampath_wsi" not in log
    assert f"{ROOT}/workflow" not in log
    assert f"{ROOT}/Snakefile" not in log
    assert {path.name for path in tmp_path.iterdir()} == {"x", "res"}

    # From elsewhere, with the bad slide left out: all is done already.
    (tmp_path / "y").mkdir()
    words = ("--slides", "../x/*.tif", "--out", "../res", "--model", tiny_model)
    again = run(*program[:2], *words, cwd=tmp_path / "y", path=installed)
    assert again.returncode == 0, again.stderr
    assert "1 of 1 slides are done" in again.stdout
    assert "infer" not in again.stderr
