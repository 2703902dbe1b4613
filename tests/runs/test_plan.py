"""A run of the workflow as it is planned, and Snakemake as a process; tests/e2e/test_wheel.py runs it for true."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from sampath_wsi.errors import ConfigError, StoreError
from sampath_wsi.runs import plan as workflow_run
from sampath_wsi.runs.plan import plan_run, profile_path, snakemake_command, snakemake_environment, visible_gpus
from sampath_wsi.runs.process import held_folder, run_snakemake
from sampath_wsi.runs.sheet import read_slides
from tests.conftest import ROOT


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the user stands, with slides in a folder."""
    (tmp_path / "x").mkdir()
    for name in ("a.svs", "b [1].svs", "c, d.svs"):
        (tmp_path / "x" / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_paths_count_from_where_the_user_stands(folder: Path) -> None:
    plan = plan_run(["x/*.svs"], Path("res"), "demo", [], None)
    assert plan.out == folder / "res"
    plan.write(plan.out)
    assert yaml.safe_load((folder / "res" / "config.yaml").read_text()) == {
        "slides": "slides.tsv",
        "output": ".",
        "model": "demo",
    }
    rows = read_slides(str(folder / "res" / "slides.tsv"))
    assert [(row.slide, row.path) for row in rows] == [
        ("a", f"{folder}/x/a.svs"),
        ("b_1", f"{folder}/x/b [1].svs"),
        ("c_d", f"{folder}/x/c, d.svs"),
    ]


def test_a_pattern_the_shell_expanded_names_the_same_slides(folder: Path) -> None:
    words = sorted(str(path.relative_to(folder)) for path in (folder / "x").iterdir())
    assert plan_run(words, None, "demo", [], None) == plan_run(["x/*.svs"], None, "demo", [], None)
    assert [row.slide for row in plan_run(["x/c, d.svs"], None, "demo", [], None).rows] == ["c_d"]


def test_a_sheet_keeps_its_columns_and_gets_full_paths(folder: Path) -> None:
    (folder / "s.tsv").write_text("slide\tpath\tmpp\troi\tpatient\nA\tx/a.svs\t0.5\tr.geojson\tP 1\n")
    plan = plan_run(["s.tsv"], None, "demo", [], None)
    (row,) = plan.rows
    assert (row.path, row.roi, row.truth) == (f"{folder}/x/a.svs", f"{folder}/r.geojson", "")
    plan.write(folder / "copy")
    assert read_slides(str(folder / "copy" / "slides.tsv")) == [row]
    with pytest.raises(ConfigError, match=r"s\.tsv stands beside others"):
        plan_run(["s.tsv", "x/a.svs"], None, None, [], None)


def test_what_is_said_later_wins(folder: Path, tiny_model: Path) -> None:
    (folder / "c.yaml").write_text("{slides: x/a.svs, output: from-file, model: nobody, vectorize: {min_area: 7}}")
    settings = ["vectorize.tolerance=0", "vectorize={min_hole: 3}", "model=demo"]
    plan = plan_run([], None, os.path.relpath(tiny_model), settings, Path("c.yaml"))
    assert plan.out == folder / "from-file"
    assert [row.slide for row in plan.rows] == ["a"]
    assert plan.config["vectorize"] == {"min_area": 7, "tolerance": 0, "min_hole": 3}
    assert Path(plan.config["model"]).is_absolute()
    assert Path(plan.config["model"]).samefile(tiny_model)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["vectorize.tolerance"], "not of the form key=value. Write e.g. vectorize.tolerance=0"),
        (["vectorize.tolerence=0"], "there is no key 'tolerence'; is 'tolerance' meant"),
        (["model.x=1"], "model is no section"),
        (["vectorize.objects=cells"], "vectorize.objects: 'cells' cannot be used"),
        (["vectorize.min_area=[1"], "is not YAML"),
    ],
)
def test_mistakes_are_named_before_anything_is_written(folder: Path, settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        plan_run(["x/*.svs"], None, "demo" if "model.x=1" not in settings else None, ["model=demo", *settings], None)
    assert message in str(error.value)
    with pytest.raises(ConfigError, match=r"x is a folder. Name the slides in it: 'x/\*\.svs'"):
        plan_run(["x"], None, None, [], None)
    with pytest.raises(ConfigError, match="no slides are named"):
        plan_run([], None, None, [], None)
    assert [path.name for path in folder.iterdir()] == ["x"]


def words_after(command: list[str], option: str) -> list[str]:
    return [command[k + 1] for k, word in enumerate(command) if word == option]


def test_resources_are_the_machines_unless_a_profile_says_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workflow_run, "usable_cores", lambda: 7)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    local = snakemake_command(tmp_path, tmp_path / "c.yaml", further=["--until", "stitch"])
    assert words_after(local, "--cores") == ["7"]
    assert words_after(local, "--resources") == ["gpu=2"]
    assert words_after(local, "--snakefile") == [str(ROOT / "Snakefile")]
    assert local[-2:] == ["--until", "stitch"]
    monkeypatch.setattr(workflow_run, "find_spec", lambda module: True)
    cluster = snakemake_command(tmp_path, tmp_path / "c.yaml", profile=profile_path("slurm"))
    assert words_after(cluster, "--profile") == [str(ROOT / "workflow" / "profiles" / "slurm")]
    assert not {"--cores", "--resources"} & set(cluster)
    limited = snakemake_command(tmp_path, tmp_path / "c.yaml", profile="mine", gpus=0, cores=3)
    assert (words_after(limited, "--resources"), words_after(limited, "--cores")) == (["gpu=0"], ["3"])


@pytest.mark.parametrize(("visible", "count"), [("", 0), ("-1", 0), ("0", 1), ("GPU-8f,GPU-9a", 2)])
def test_gpus_that_a_scheduler_assigned(monkeypatch: pytest.MonkeyPatch, visible: str, count: int) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert visible_gpus() == count


def test_gpus_that_the_driver_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_gpus() == 0
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'GPU 0: A (UUID: x)'; echo '  MIG 1g'; echo 'GPU 1: A'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert visible_gpus() == 2


def test_profiles_by_name_and_by_path(folder: Path) -> None:
    (folder / "mine").mkdir()
    assert profile_path("mine") == str(folder / "mine")
    assert profile_path("of-my-site") == "of-my-site"  # in Snakemake's own folder of profiles
    with pytest.raises(ConfigError, match=r"there is no profile \./mime\. .*lsf, pbs, sge, slurm"):
        profile_path("./mime")
    (folder / "mine" / "config.yaml").write_text("executor: no-such\n")
    with pytest.raises(ConfigError, match=r"'no-such' is not installed.*pip install snakemake-executor-plugin-no-such"):
        profile_path("mine")
    (folder / "mine" / "config.yaml").write_text("executor: local\n")
    assert profile_path("mine") == str(folder / "mine")


def test_what_profiles_default_says_holds_for_a_run_too(tmp_path: Path) -> None:
    text = (ROOT / "workflow" / "profiles" / "default" / "config.yaml").read_text()
    said = {line.split(":")[0] for line in text.splitlines() if line.endswith(": true") and not line.startswith("_")}
    # Reasons stand in the display of a run.
    assert {f"--{key}" for key in said - {"show-failed-logs"}} <= set(snakemake_command(tmp_path, tmp_path))


@pytest.mark.parametrize("called", ["sampath-wsi", "pytest"])
def test_jobs_find_this_program_without_an_active_environment(called: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [called])  # a name without a folder says nothing of where the program lies
    environment = snakemake_environment({"PATH": "/usr/bin", "PYTHONPATH": "/mine"})
    first, *rest = environment["PATH"].split(os.pathsep)
    assert (Path(first) / "sampath-wsi").exists()
    assert rest == ["/usr/bin"]
    plugins, mine = environment["PYTHONPATH"].split(os.pathsep)
    assert (Path(plugins) / "snakemake_logger_plugin_sampath" / "__init__.py").is_file()
    assert mine == "/mine"


def test_a_folder_is_one_runs_and_remembers_how_it_was_made(tmp_path: Path) -> None:
    with (
        held_folder(tmp_path / "out"),
        pytest.raises(StoreError, match=f"process {os.getpid()} on"),
        held_folder(tmp_path / "out"),
    ):
        pass
    with held_folder(tmp_path / "out"):
        pass
    (tmp_path / "old" / "slides").mkdir(parents=True)
    with pytest.raises(StoreError, match="made by `snakemake` from another folder"), held_folder(tmp_path / "old"):
        pass


SNAKEMAKE = """
import pathlib, signal, subprocess, sys, time
job = subprocess.Popen(["sleep", "60"])
subprocess.Popen(["sh", "-c", "trap '' INT TERM; touch trapped; sleep 0.7; touch ended"])  # finishes its work
while not pathlib.Path("trapped").exists():
    time.sleep(0.01)
def end(number, frame):
    pathlib.Path("received").write_text(f"{signal.Signals(number).name} {job.wait()}")
    sys.exit(1)
signal.signal(signal.SIGINT, end)
signal.signal(signal.SIGTERM, end)
pathlib.Path("begun").touch()
time.sleep(60)
"""
RUN = """
import os, sys
from sampath_wsi.runs.process import run_snakemake
try:
    run_snakemake([sys.executable, "-c", sys.argv[1]], os.environ)
except BaseException as error:
    print(type(error).__name__)
"""


@pytest.mark.parametrize(
    ("sent", "received", "raised"),
    [
        (signal.SIGINT, "SIGINT", "KeyboardInterrupt"),
        (signal.SIGTERM, "SIGTERM", "Stopped"),
        (signal.SIGHUP, "SIGTERM", "Stopped"),
    ],
)
def test_signals_reach_snakemake_and_its_jobs_once(
    tmp_path: Path, sent: signal.Signals, received: str, raised: str
) -> None:
    with subprocess.Popen([sys.executable, "-c", RUN, SNAKEMAKE], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as p:
        deadline = time.monotonic() + 60
        while not (tmp_path / "begun").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        p.send_signal(sent)
        out, _ = p.communicate(timeout=3600)
    assert out == f"{raised}\n"
    # The job got the signal too: it did not sleep to its end.
    assert (tmp_path / "received").read_text() == f"{received} {-signal.Signals[received]}"
    assert (tmp_path / "ended").exists(), "a job that Snakemake did not wait for was left"


def test_the_exit_code_is_snakemakes() -> None:
    assert run_snakemake([sys.executable, "-c", "raise SystemExit(3)"], os.environ) == 3


def test_no_module_comes_from_where_the_user_stands(tmp_path: Path) -> None:
    """A checkout called as the package lies below many a user's folder."""
    (tmp_path / "sampath_wsi").mkdir()
    command = snakemake_command(tmp_path / "out", tmp_path / "config.yaml")
    program = "import sys; print('' in sys.path)"
    found = subprocess.run([*command[:2], "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"
