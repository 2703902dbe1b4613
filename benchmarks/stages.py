"""Wall time, CPU time and peak memory of every stage on synthetic slides of growing area.

    python benchmarks/stages.py                       # 8000 x 6000 px and four times the area
    python benchmarks/stages.py --sizes 8000x6000 --model path/to/model --repeat 3

Each stage runs as its own process, as the workflow runs it; peak memory is that of the process and its children.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from common import Cost, measure


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
