"""Stitch and vectorize: how fast is the way from probabilities to GeoJSON, and does memory stay flat?

``python benchmarks/map.py`` writes the probability store of a slide of 100,000 x 100,000 px at 0.25 um/px (40 % tissue,
five classes, a map of 2 um/px), runs ``stitch`` and ``vectorize`` on it as processes of their own, once on one core and
once on two, and again on a slide of twice the area. Last, both run once more in this process, on one thread, to show
what each step takes. The reference is the time that reading the same tissue takes on two threads, at the rate that
``benchmarks/tiling.py`` shows.

``--tissue 1`` fills the slide; ``--shapes dense`` has five times as long borders; ``--size 20000`` takes seconds.
"""

from __future__ import annotations

import argparse
import gzip
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from common import Cost, measure, print_machine, print_table, tree_mb
from map_steps import step_shares
from map_store import SHAPES, plan_grid, write_probabilities

from sampath_wsi.geometry import TileGrid
from sampath_wsi.stores.shards import Shards
from sampath_wsi.stores.store import remove_store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=100_000, help="level-0 pixels a side")
    parser.add_argument("--tissue", type=float, default=0.4, help="share of the slide")
    parser.add_argument("--shapes", choices=list(SHAPES), default="natural")
    parser.add_argument("--read-rate", type=float, default=400, help="of reading on two threads, level-0 Mpx a second")
    parser.add_argument("--doubled", action=argparse.BooleanOptionalAction, default=True, help="a second, wider slide")
    parser.add_argument("--steps", action=argparse.BooleanOptionalAction, default=True, help="the share of each step")
    parser.add_argument("--folder", type=Path, help="keep the stores and the results there")
    arguments = parser.parse_args()
    print_machine("dask", "numpy", "scipy", "shapely", "zarr")
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        rows: list[tuple[object, ...]] = []
        for columns in (1, 2) if arguments.doubled else (1,):
            probabilities = folder / f"{columns}.zarr"
            grid = _write(probabilities, arguments, columns)
            for cores in (1, 2):
                rows += _run(folder, probabilities, grid, cores, arguments.read_rate)
        print_table(_HEADER, rows)
        if arguments.steps:
            steps = step_shares(folder / "1.zarr", folder / "steps.ome.zarr", folder / "steps.geojson.gz")
            print_table(("stage", "step, on one core", "s", "%"), steps)


_HEADER = ("slide, cores", "stage", "wall s", "CPU s", "peak MB", "Mpx of map/s", "written MB", "reading its tissue s")


def _write(path: Path, arguments: argparse.Namespace, columns: int) -> TileGrid:
    begun = time.monotonic()
    grid = plan_grid(columns * arguments.size, arguments.size)
    grid = _in_a_process(write_probabilities, path, grid, arguments.tissue, arguments.shapes)
    width, height = grid.map_size_map_px
    print(
        f"map of {width} x {height} px, {len(grid.tiles)} of {grid.rows * grid.columns} tiles hold tissue; "
        f"{tree_mb(path):.0f} MB written in {time.monotonic() - begun:.0f} s",
        flush=True,
    )
    return grid


def _run(folder: Path, probabilities: Path, grid: TileGrid, cores: int, read_rate: float) -> list[tuple[object, ...]]:
    width, height = grid.map_size_map_px
    name = f"{grid.slide_width_level0_px} x {grid.slide_height_level0_px}, {cores}"
    segmentation, out = folder / "segmentation.ome.zarr", folder / "segmentation.geojson.gz"
    remove_store(segmentation)
    everything = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(everything)[:cores])  # processes that are started inherit it
    try:
        costs = {
            "stitch": measure("stitch", probabilities, "--out", segmentation, "--threads", cores),
            "vectorize": measure("vectorize", segmentation, "--out", out),
        }
    finally:
        os.sched_setaffinity(0, everything)
    costs["both"] = Cost(
        *(sum(getattr(cost, key) for cost in costs.values()) for key in ("wall_s", "cpu_s")),
        max(cost.peak_mb for cost in costs.values()),
    )
    megapixels = width * height / 1e6
    reading_s = len(grid.tiles) * (grid.step_model_px * grid.level0_px_per_model_px[0]) ** 2 / 1e6 / read_rate
    if cores == 1:
        _in_a_process(_describe, segmentation, out)
    sizes = {"stitch": tree_mb(segmentation), "vectorize": tree_mb(out), "both": ""}
    return [
        (name, stage, cost.wall_s, cost.cpu_s, cost.peak_mb, megapixels / cost.wall_s, sizes[stage], reading_s)
        for stage, cost in costs.items()
    ]


def _in_a_process(function: Callable[..., Any], *arguments: object) -> Any:
    """Call it in a process of its own: the memory of this one counts as that of every process that it starts."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def _describe(segmentation: Path, out: Path) -> None:
    """Print how long the borders are, and what became of them."""
    labels = Shards(zarr.open_array(segmentation / "labels/classes/0", mode="r"))
    sides = tissue = 0
    for y in range(0, labels.shape[0], 2048):
        part = labels.read(slice(y, min(y + 2048, labels.shape[0])), slice(0, labels.shape[1]))
        sides += np.count_nonzero(part[1:] != part[:-1]) + np.count_nonzero(part[:, 1:] != part[:, :-1])
        tissue += np.count_nonzero(part)
    with gzip.open(out) as file:
        objects = sum(line.startswith(b'{"type":"Feature"') for line in file)
    print(
        f"{tissue / 1e6:.1f} Mpx of tissue, {100 * sides / tissue:.1f} pixel sides between labels per 100 px of it, "
        f"{objects} objects\n",
        flush=True,
    )


if __name__ == "__main__":
    main()
