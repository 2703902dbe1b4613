"""The whole workflow beside a straightforward script: the same trivial model, the same slides, one run.

    python benchmarks/straightforward.py                      # 20,000 and 40,000 px a side, 40 % tissue
    python benchmarks/straightforward.py --folder slides      # slides are kept there for the next time

Ours is four processes, as the workflow runs them; the script (straightforward_script.py) is one. `work` is the wall
time without the start of processes and imports. Goals: 15 s of work, 1.5 GB at every size, 3 MB of GeoJSON with holes.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import shapely
import trivial
from big_slide import MPP, big_slide
from common import Cost, measure_command, print_machine, print_table

HERE = Path(__file__).parent


def run_ours(slide: Path, folder: Path) -> dict[str, tuple[Cost, float]]:
    """Cost and seconds of work of every stage."""
    costs = {}
    for stage in trivial.STAGES:
        cost = measure_command([sys.executable, str(HERE / "trivial.py"), stage, str(slide), str(folder)])
        costs[stage] = (cost, float(json.loads((folder / f"{stage}.json").read_text())["work_s"]))
    return costs


def run_script(slide: Path, out: Path) -> tuple[Cost, float]:
    cost = measure_command([sys.executable, str(HERE / "straightforward_script.py"), str(slide), str(out)])
    return cost, float(json.loads(Path(f"{out}.json").read_text())["work_s"])


def read_features(path: Path) -> list[dict[str, Any]]:
    with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
        features: list[dict[str, Any]] = json.load(file)["features"]
    return features


def areas_mm2(features: list[dict[str, Any]]) -> dict[str, float]:
    """Area of each class, holes taken off."""
    areas = {str(kind["name"]): 0.0 for kind in trivial.CLASSES}
    for feature in features:
        polygon = shapely.geometry.shape(feature["geometry"])
        areas[feature["properties"]["classification"]["name"]] += polygon.area * (MPP / 1e3) ** 2
    return areas


def holes(features: list[dict[str, Any]]) -> int:
    polygons = shapely.get_parts([shapely.geometry.shape(feature["geometry"]) for feature in features])
    return int(shapely.get_num_interior_rings(polygons).sum())


def row(who: str, costs: list[Cost], work_s: float, geojson: Path | None = None) -> list[object]:
    wall_s, cpu_s = sum(cost.wall_s for cost in costs), sum(cost.cpu_s for cost in costs)
    cells: list[object] = [who, work_s, wall_s - work_s, cpu_s, max(cost.peak_mb for cost in costs)]
    if geojson is None:
        return [*cells, "", "", ""]
    features = read_features(geojson)
    return [*cells, geojson.stat().st_size / 1e6, len(features), holes(features)]


def compare(slide: Path, folder: Path) -> None:
    """Run both on one slide and print what they cost and found."""
    stages = run_ours(slide, folder)
    script_cost, script_work_s = run_script(slide, folder / "script.geojson")
    ours, theirs = folder / "segmentation.geojson.gz", folder / "script.geojson"
    rows = [row(stage, [cost], work_s) for stage, (cost, work_s) in stages.items()]
    work_s = sum(seconds for _, seconds in stages.values())
    rows.append(row("ours, together", [cost for cost, _ in stages.values()], work_s, ours))
    rows.append(row("the script", [script_cost], script_work_s, theirs))
    ratios: list[object] = [a / b for a, b in zip(rows[-1][1:6], rows[-2][1:6], strict=True)]  # type: ignore[operator]
    rows.append(["script / ours", *ratios, "", ""])
    print_table(("", "work s", "start s", "CPU s", "peak MB", "GeoJSON MB", "objects", "holes"), rows)
    found = areas_mm2(read_features(ours)), areas_mm2(read_features(theirs))
    table = [[name, *(area[name] for area in found), f"{100 * (found[0][name] / found[1][name] - 1):+.2f} %"]
             for name in found[0]]  # fmt: skip
    print_table(("area mm^2", "ours", "the script", "difference"), table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=int, default=[20_000, 40_000], help="side of the slide in pixels")
    parser.add_argument("--folder", type=Path, help="keep the slides here")
    arguments = parser.parse_args()
    print_machine("torch", "openslide-python", "opencv-python-headless", "zarr")
    for size in arguments.sizes:
        with tempfile.TemporaryDirectory() as scratch:
            slide = big_slide(arguments.folder or Path(scratch), size, size)
            print(f"{size} x {size} px, {slide.stat().st_size / 1e6:.0f} MB\n")
            compare(slide, Path(scratch))


if __name__ == "__main__":
    main()
