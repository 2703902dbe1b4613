"""Cost of each stage, and its growth with the slide: the whole workflow on 1, 4 and 16 times an area.

    python benchmarks/growth.py                       # from 6000 x 6000 px, with the demo model
    python benchmarks/growth.py --model trivial --side 10000 --folder keep

Each stage runs as its own process, as the workflow runs it; peak memory is that of the process and its children. The
tissue (40 % of the slide) has the same shape at every size. Linear is 4 from one size to the next, less where
costs are fixed; more is a defect. `growth` takes fixed costs off: what the second step adds over what the first one
adds, as a power of the area (1 = linear), where the first one adds enough to tell.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from big_slide import big_slide
from common import Cost, measure, measure_command, print_machine, print_table, tree_mb

OUTPUTS = {
    "tile": "tiles.zarr",
    "infer": "probabilities.zarr",
    "stitch": "segmentation.ome.zarr",
    "vectorize": "segmentation.geojson.gz",
    "report": "overlay.png",
}
# Where the first step adds less than this share, what is fixed hides how it grows.
_NOISE = 0.2


class StageCost(NamedTuple):
    """Of one stage on one slide."""

    wall_s: float
    cpu_s: float
    peak_mb: float
    disk_mb: float


def slide_or_synthetic(slide: Path | None, folder: Path) -> Path:
    """The slide that was given, or a synthetic one made in a folder."""
    if slide is not None:
        return slide
    measure("demo-slide", folder / "slide.tif")
    return folder / "slide.tif"


def run_stages(slide: Path, folder: Path, model: str) -> dict[str, StageCost]:
    """Take one slide through all stages; the model is one of the zoo, the path of one, or ``trivial``."""
    folder.mkdir(parents=True, exist_ok=True)
    out = {stage: folder / name for stage, name in OUTPUTS.items()}
    commands: dict[str, tuple[object, ...]] = {
        "tile": (slide, "--out", out["tile"], "--model", model),
        "infer": (out["tile"], "--out", out["infer"], "--model", model),
        "stitch": (out["infer"], "--out", out["stitch"]),
        "vectorize": (out["stitch"], "--out", out["vectorize"]),
        "report": (slide, out["stitch"], "--overlay", out["report"], "--summary", folder / "summary.json"),
    }
    costs = {}
    for stage, words in commands.items():
        trivial = model == "trivial" and stage in ("tile", "infer")
        cost = _measure_trivial(stage, slide, folder) if trivial else measure(stage, *words)
        costs[stage] = StageCost(cost.wall_s, cost.cpu_s, cost.peak_mb, tree_mb(out[stage]))
    return costs


def _measure_trivial(stage: str, slide: Path, folder: Path) -> Cost:
    script = Path(__file__).parent / "trivial.py"
    return measure_command([sys.executable, str(script), stage, str(slide), str(folder)])


def growth(values: Sequence[float]) -> str:
    """The power of the area with which three values grow beyond what is fixed, for areas of 1, 4 and 16."""
    first, second = values[1] - values[0], values[2] - values[1]
    return f"{math.log(second / first, 4):.2f}" if first > _NOISE * values[0] and second > 0 else "-"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=6000, help="side of the smallest slide in pixels of 0.25 um")
    parser.add_argument("--model", default="demo", help="a name of the zoo, a path, or trivial")
    parser.add_argument("--folder", type=Path, help="keep the slides here")
    arguments = parser.parse_args()
    print_machine("torch", "zarr")
    sides = [arguments.side * factor for factor in (1, 2, 4)]
    runs: list[dict[str, StageCost]] = []
    for side in [sides[0], *sides]:  # the first run warms the machine's caches and does not count
        with tempfile.TemporaryDirectory() as scratch:
            slide = big_slide(arguments.folder or Path(scratch), side, side)
            runs.append(run_stages(slide, Path(scratch) / "out", arguments.model))
    del runs[0]
    stages = [*runs[0], "together"]
    for run in runs:
        values = list(zip(*run.values(), strict=True))
        run["together"] = StageCost(sum(values[0]), sum(values[1]), max(values[2]), sum(values[3]))
    for index, what in enumerate(("wall s", "CPU s", "peak memory MB", "on disk MB")):
        rows = []
        for stage in stages:
            found = [run[stage][index] for run in runs]
            rows.append([stage, *found, found[1] / found[0], found[2] / found[1], growth(found)])
        sizes = [f"{side} px" for side in sides]
        print_table((what, *sizes, "4x / 1x", "16x / 4x", "growth"), rows)


if __name__ == "__main__":
    main()
