"""Wall time, CPU time and peak memory of every stage on synthetic slides of growing area.

    python benchmarks/stages.py                       # 8000 x 6000 px and four times the area
    python benchmarks/stages.py --sizes 8000x6000 --model path/to/model --repeat 3

Each stage runs as its own process, as the workflow runs it; peak memory is that of the process and its children.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cost:
    """What one process cost."""

    wall_s: float
    cpu_s: float
    peak_mb: float


def measure(*words: object) -> Cost:
    """Run a command of sampath-wsi and measure it."""
    command = [str(Path(sys.executable).parent / "sampath-wsi"), *map(str, words)]
    begun = time.monotonic()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        peak_mb = _watch(process)
        _, status, usage = os.wait4(process.pid, 0) if process.returncode is None else (0, 0, None)
        process.returncode = status
        log.seek(0)
        if status:
            sys.exit(f"{' '.join(command)} failed:\n{log.read().decode()}")
    assert usage is not None
    return Cost(time.monotonic() - begun, usage.ru_utime + usage.ru_stime, max(peak_mb, usage.ru_maxrss / 1024))


def _watch(process: subprocess.Popen[bytes]) -> float:
    """The largest sum of resident memory of a process and its children while it runs, in MB."""
    peak_kb = 0
    while True:
        state = Path(f"/proc/{process.pid}/stat")
        if not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return peak_kb / 1024
        peak_kb = max(peak_kb, sum(_resident_kb(pid) for pid in _family(process.pid)))
        time.sleep(0.05)


def _family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(descendant for child in children for descendant in _family(int(child)))]


def _resident_kb(pid: int) -> int:
    # Proportional set size: memory that several processes share counts once.
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    except OSError:
        pass
    return 0


def slide_or_synthetic(slide: Path | None, folder: Path) -> Path:
    """The slide that was given, or a synthetic one made in a folder."""
    if slide is not None:
        return slide
    measure("demo-slide", folder / "slide.tif")
    return folder / "slide.tif"


def run_stages(slide: Path, folder: Path, model: str) -> dict[str, Cost]:
    """Take one slide through all stages."""
    tiles, probabilities = folder / "tiles.zarr", folder / "probabilities.zarr"
    segmentation, geojson = folder / "segmentation.ome.zarr", folder / "segmentation.geojson.gz"
    report = ("--overlay", folder / "overlay.png", "--summary", folder / "summary.json")
    return {
        "tile": measure("tile", slide, "--out", tiles, "--model", model),
        "infer": measure("infer", tiles, "--out", probabilities, "--model", model),
        "stitch": measure("stitch", probabilities, "--out", segmentation),
        "vectorize": measure("vectorize", segmentation, "--out", geojson),
        "report": measure("report", slide, segmentation, *report),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["8000x6000", "16000x12000"], help="width x height in pixels")
    parser.add_argument("--model", default="demo")
    arguments = parser.parse_args()
    print("| slide | stage | wall s | CPU s | peak MB |\n|---|---|---:|---:|---:|")
    for size in arguments.sizes:
        width, height = size.split("x")
        with tempfile.TemporaryDirectory() as scratch:
            slide = Path(scratch) / "slide.tif"
            measure("demo-slide", slide, "--width", width, "--height", height)
            for stage, cost in run_stages(slide, Path(scratch) / "out", arguments.model).items():
                print(f"| {size} | {stage} | {cost.wall_s:.1f} | {cost.cpu_s:.1f} | {cost.peak_mb:.0f} |", flush=True)
            shutil.rmtree(Path(scratch) / "out")


if __name__ == "__main__":
    main()
