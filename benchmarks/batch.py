"""A long batch: does the workflow bring 200 slides through, 5 of them bad, and what does a slide cost beside the work?

    python benchmarks/batch.py                        # 200 slides, the demo model
    python benchmarks/batch.py --slides 20 --cores 4

The slides are one tile each, so nearly all of the time is overhead: the start of processes, imports, loading the model,
and Snakemake. Five are bad in five ways. Checked are the results of all others, a row with the reason for each bad one
at the top of the table, the page, and the exit code. Goal: less than 10 CPU-seconds of overhead a slide.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile
from common import print_machine, print_table

ROOT = Path(__file__).resolve().parents[1]
RESULT_FILES = ("segmentation.geojson.gz", "segmentation.ome.zarr/zarr.json", "overlay.png", "summary.json")
GOAL_CPU_S = 10
_SIDE_PX, _MPP = 400, 0.5
_STAGES = ("tile", "infer", "stitch", "vectorize", "report")
_PARTS = ("interpreter", "imports", "model", "the rest")
# Read by every Python process of the run as it starts: notes what its start cost. An import within another counts once.
_NOTE_COSTS = """
import atexit, builtins, json, os, sys, threading, time
words = [os.path.basename(sys.argv[0]), *sys.argv[1:2]] if getattr(sys, "argv", None) else []
if words[:1] == ["sampath-wsi"] or words[:1] == ["snakemake"]:
    cost = {"name": words[-1] if words[0] == "sampath-wsi" else words[0], "interpreter": time.process_time()}
    plain, spent, inside = builtins.__import__, [0.0], []
    def timed(*args, **kwargs):
        if inside or threading.current_thread() is not threading.main_thread():
            return plain(*args, **kwargs)
        inside.append(time.process_time())
        try:
            return plain(*args, **kwargs)
        finally:
            spent[0] += time.process_time() - inside.pop()
    builtins.__import__ = timed
    def note():
        cost.update(imports=spent[0], together=time.process_time())
        with open(os.environ["BATCH_COSTS"], "a") as file:
            file.write(json.dumps(cost) + "\\n")
    atexit.register(note)
"""
_LOAD_MODEL = """
import sys, time
from sampath_wsi.model import bundle, sampath
begun = time.process_time()
bundle.load_bundle(sys.argv[1])
print(time.process_time() - begun)
"""


def write_slide(path: Path, compression: str | None = None, mpp: float | None = _MPP) -> None:
    """A white slide with a pink disc, tiled, of one level."""
    y, x = np.mgrid[:_SIDE_PX, :_SIDE_PX] - _SIDE_PX / 2
    rgb = np.where((x**2 + y**2 < (_SIDE_PX / 3) ** 2)[..., None], (200, 120, 170), 245).astype(np.uint8)
    resolution = {} if mpp is None else {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
    options = {"tile": (128, 128), "photometric": "rgb", "metadata": None, "compression": compression}
    tifffile.imwrite(path, rgb, **options, **resolution)  # type: ignore[arg-type]


def _undecodable(path: Path) -> None:
    """Opens as a slide, but its pixels were overwritten."""
    write_slide(path, "zlib")
    with tifffile.TiffFile(path) as tiff:
        spans = list(zip(tiff.pages[0].dataoffsets, tiff.pages[0].databytecounts, strict=True))
    with open(path, "r+b") as file:
        for offset, count in spans:
            file.seek(offset)
            file.write(b"\xa5" * count)


def _truncated(path: Path) -> None:
    write_slide(path)
    os.truncate(path, path.stat().st_size // 3)


# File name, how it is made, and what the reason in the table must say.
BAD: dict[str, tuple[Callable[[Path], object] | None, str]] = {
    "missing.tif": (None, "there is no such slide"),
    "notes.svs": (lambda path: path.write_text("not a slide\n"), "not a slide that OpenSlide knows"),
    "truncated.tif": (_truncated, "cannot be opened"),
    "no-resolution.tif": (lambda path: write_slide(path, mpp=None), "hold no resolution (mpp)"),
    "undecodable.tif": (_undecodable, "ZIPDecode: Decoding error"),
}


def make_batch(folder: Path, slides: int) -> Path:
    """So many slides, the bad ones spread among them, in a working directory; returns the sample sheet."""
    (data := folder / "data").mkdir(parents=True)
    write_slide(data / "first.tif")
    names = [f"slide-{number:04}.tif" for number in range(slides - len(BAD))]
    for name in names:
        os.link(data / "first.tif", data / name)
    for number, (name, (make, _)) in enumerate(BAD.items()):
        names.insert(number * slides // len(BAD), name)
        if make is not None:
            make(data / name)
    rows = [["slide", "path"], *([Path(name).stem, f"data/{name}"] for name in names)]
    with open(sheet := folder / "slides.tsv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter="\t").writerows(rows)
    for name in ("Snakefile", "workflow", "profiles", "config", "envs"):
        (folder / name).symlink_to(ROOT / name)
    return sheet


def run_batch(folder: Path, model: str, cores: int) -> tuple[int, float, float]:
    """Run the workflow as a user does: exit code, wall seconds, CPU seconds of all its processes."""
    (modules := folder / "modules").mkdir()
    (modules / "sitecustomize.py").write_text(_NOTE_COSTS)
    scripts = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(modules), os.environ.get("PYTHONPATH")])),
        "BATCH_COSTS": str(folder / "costs.jsonl"),
    }
    words = ["snakemake", "--cores", str(cores), "--resources", "gpu=1", "--config", "slides=slides.tsv"]
    words += [f"model={model}", "output=results"]
    begun = time.monotonic()
    with open(folder / "log.txt", "w") as log:
        process = subprocess.Popen(words, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, time.monotonic() - begun, usage.ru_utime + usage.ru_stime


def is_complete(results: Path) -> bool:
    """Whether a slide has all of its results."""
    return all((results / name).exists() for name in RESULT_FILES)


def check_batch(folder: Path, slides: int, exit_code: int) -> list[str]:
    """Return the problems of a batch."""
    results = folder / "results"
    with open(results / "cohort.tsv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    complete = [row["slide"] for row in rows if is_complete(results / "slides" / row["slide"])]
    wrong = [
        f"the table says '{row['reason']}' of {row['slide']}"
        for row, (name, (_, reason)) in zip(rows, BAD.items(), strict=False)
        if row["slide"] != Path(name).stem or row["status"] != "failed" or reason not in row["reason"]
    ]
    page = results / "cohort.html"
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    found = {
        "exit code 0, although slides failed": exit_code == 0,
        f"{len(rows)} rows of {slides} slides": len(rows) != slides,
        f"{len(complete)} results": complete != [row["slide"] for row in rows[len(BAD) :] if row["status"] == "ok"],
        f"{sum(row['slide'] not in text for row in rows)} slides are not on the page": any(
            row["slide"] not in text for row in rows
        ),
        "a traceback in the log": "Traceback" in (folder / "log.txt").read_text(errors="replace"),
    }
    return [*wrong, *(what for what, holds in found.items() if holds)]


def part_costs(costs: Path, model_s: float) -> dict[str, Counter[str]]:
    """CPU seconds of all processes of a kind (a stage, ``snakemake``), by part of its course."""
    sums: dict[str, Counter[str]] = {}
    for line in costs.read_text().splitlines():
        cost = json.loads(line)
        loading = model_s if cost["name"] == "infer" else 0.0
        parts = {"interpreter": cost["interpreter"], "imports": cost["imports"], "model": loading}
        parts["the rest"] = cost["together"] - sum(parts.values())
        sums.setdefault(cost["name"], Counter()).update(parts)
    return sums


def print_costs(sums: dict[str, Counter[str]], slides: int, cpu_s: float) -> None:
    """A row a stage, CPU seconds a slide; what no process noted, such as the end of processes, is a row too."""
    rows: list[list[object]] = []
    for name in (*_STAGES, "snakemake"):
        parts = [sums.get(name, Counter())[part] / slides for part in _PARTS]
        rows.append([name, *parts, sum(parts)])
    noted = sum(sum(parts.values()) for parts in sums.values())
    rows.append(["ends of processes, shells", "", "", "", "", (cpu_s - noted) / slides])
    rows.append(["together", *(sum(float(str(row[k])) for row in rows[:-1]) for k in range(1, 5)), cpu_s / slides])
    print_table(["CPU s a slide", *_PARTS, "together"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slides", type=int, default=200, help="how many, the five bad ones included")
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--model", default="demo")
    parser.add_argument("--goal", type=float, default=GOAL_CPU_S, help="CPU-seconds of overhead a slide")
    parser.add_argument("--folder", type=Path, help="a new folder, kept; default: a temporary one")
    options = parser.parse_args()
    print_machine("snakemake", "torch")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary) / "batch"
        make_batch(folder, options.slides)
        loading = [sys.executable, "-c", _LOAD_MODEL, options.model]
        model_s = float(subprocess.run(loading, check=True, capture_output=True, text=True).stdout)
        code, wall_s, cpu_s = run_batch(folder, options.model, options.cores)
        wrong = check_batch(folder, options.slides, code)
        sums = part_costs(folder / "costs.jsonl", model_s)
    print(f"{options.slides} slides, {len(BAD)} of them bad, on {options.cores} cores: exit code {code}, ", end="")
    print(f"{options.slides - len(BAD)} results expected; {wall_s:.0f} s, {wall_s / options.slides:.2f} s a slide\n")
    print_costs(sums, options.slides, cpu_s)
    if cpu_s / options.slides >= options.goal:
        wrong.append(f"{cpu_s / options.slides:.1f} CPU-seconds a slide: the goal is less than {options.goal:g}")
    if wrong:
        sys.exit("\n".join(wrong))
    print(f"All is as it must be, and overhead is below the goal of {options.goal:g} CPU-seconds a slide.")


if __name__ == "__main__":
    main()
