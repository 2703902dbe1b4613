"""Speed and memory of vectorizing, on a class map of natural shapes of any size.

``python benchmarks/vectorize.py --size 4096`` writes a segmentation store of that many map pixels a side (2 um each,
five classes and glass without class), vectorizes it with the default options, and prints map pixels a second, the share
of each step, peak memory, and the size of the result. The size of the shapes does not depend on the size of the map, so
that a map of four times the area shows how time and memory grow.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import psutil
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from sampath_wsi.geometry import TileGrid
from sampath_wsi.qupath import ObjectWriter
from sampath_wsi.store import GrowingStore, Provenance
from sampath_wsi.vectorize import core, drawing, outline, survey, vectorize
from sampath_wsi.vectorize.chunks import StoreMap

CLASSES = [
    {"name": "Tumor", "color": [200, 0, 0]},
    {"name": "Stroma", "color": [150, 200, 150]},
    {"name": "Immune cells", "color": [160, 90, 160]},
    {"name": "Necrosis", "color": [50, 50, 50]},
    {"name": "Other", "color": [255, 200, 0]},
]
CHUNK_MAP_PX, SHARD_MAP_PX = 512, 1024
# Two octaves of noise: tissue compartments of about 100 um, and their ragged borders of about 20 um.
OCTAVES = ((48, 1.0), (10, 0.2))


class NaturalShapes:
    """Smooth random scores of every class, and of glass, at any place of a map."""

    def __init__(self, size_map_px: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.octaves = [
            (px, weight * rng.standard_normal((len(CLASSES) + 1, size_map_px // px + 4, size_map_px // px + 4)))
            for px, weight in OCTAVES
        ]

    def block(self, y: int, x: int, size: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Probability ``(class, y, x)`` in bytes and label map ``(y, x)``."""
        scores = np.zeros((len(CLASSES) + 1, size, size))
        for px, noise in self.octaves:
            at = np.meshgrid(np.arange(y, y + size) / px + 1, np.arange(x, x + size) / px + 1, indexing="ij")
            for channel, values in enumerate(noise):
                scores[channel] += map_coordinates(values, at, order=3, prefilter=False)
        label = scores.argmax(0).astype(np.uint8)
        weight = np.exp(4 * (scores[1:] - scores[1:].max(0)))
        probability = np.rint(255 * weight / weight.sum(0)).astype(np.uint8)
        # Classes sum to 255 in every pixel, as in the stores of the stages before.
        np.put_along_axis(
            probability,
            (top := probability.argmax(0)[None]),
            (np.take_along_axis(probability, top, 0) + (255 - probability.sum(0, dtype=np.int64))).astype(np.uint8),
            0,
        )
        return probability, label


def write_store(path: Path, size_map_px: int, seed: int = 0) -> float:
    """A segmentation store of natural shapes; returns pixel sides between different labels per pixel."""
    size_level0_px = size_map_px * 8
    grid = TileGrid.plan(
        slide_size_level0_px=(size_level0_px, size_level0_px),
        mpp=(0.25, 0.25),
        mpp_source="metadata",
        region_level0_px=(0, 0, size_level0_px, size_level0_px),
        mpp_model=0.5,
        tile_model_px=1024,
        overlap_model_px=128,
        output_stride=4,
    )
    slide = {"id": "benchmark", "name": "benchmark", "fingerprint": "0" * 64, "qupath_offset_level0_px": [0, 0]}
    store = GrowingStore.begin(path, Provenance("segmentation", slide, grid, {"classes": CLASSES}))
    probability = store.array(
        "0",
        shape=(len(CLASSES), size_map_px, size_map_px),
        dtype=np.uint8,
        chunks=(1, CHUNK_MAP_PX, CHUNK_MAP_PX),
        shards=(len(CLASSES), SHARD_MAP_PX, SHARD_MAP_PX),
        dimension_names=("c", "y", "x"),
    )
    label_map = store.array(
        "labels/classes/0",
        shape=(size_map_px, size_map_px),
        dtype=np.uint8,
        chunks=(CHUNK_MAP_PX, CHUNK_MAP_PX),
        shards=(SHARD_MAP_PX, SHARD_MAP_PX),
        dimension_names=("y", "x"),
    )
    shapes, sides = NaturalShapes(size_map_px, seed), 0
    for y in range(0, size_map_px, SHARD_MAP_PX):
        for x in range(0, size_map_px, SHARD_MAP_PX):
            values, label = shapes.block(y, x, SHARD_MAP_PX)
            height, width = min(SHARD_MAP_PX, size_map_px - y), min(SHARD_MAP_PX, size_map_px - x)
            probability[:, y : y + height, x : x + width] = values[:, :height, :width]
            label_map[y : y + height, x : x + width] = label = label[:height, :width]
            sides += np.count_nonzero(label[1:] != label[:-1]) + np.count_nonzero(label[:, 1:] != label[:, :-1])
    store.finish()
    return sides / size_map_px**2


class Stopwatch:
    """Times functions of this process, each without the others that it calls."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._running: list[str] = []
        self._since = 0.0

    def around(self, step: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **options: Any) -> Any:
            self._switch()
            self._running.append(step)
            try:
                return function(*args, **options)
            finally:
                self._switch()
                self._running.pop()

        return timed

    def _switch(self) -> None:
        now = time.perf_counter()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now


@contextmanager
def timed_steps(watch: Stopwatch) -> Iterator[None]:
    steps = [
        ("read the store", StoreMap, "labels"),
        ("read the store", StoreMap, "probability"),
        ("connected regions", survey, "connected_regions"),
        ("connected regions", outline, "connected_regions"),
        ("borders between regions", survey, "borders"),
        ("mean probabilities", survey, "region_sums"),
        ("join and clean", core, "plan"),
        ("trace outlines", outline, "trace"),
        ("simplify", outline, "simplify"),
        ("cut at chunk borders", outline, "drop_redundant"),
        ("cut at chunk borders", outline, "_open_parts"),
        ("join outlines", core, "join_outline"),
        ("round, check and encode", drawing, "_encode"),
        ("write and compress", ObjectWriter, "write"),
    ]
    with ExitStack() as stack:
        for step, owner, name in steps:
            stack.enter_context(mock.patch.object(owner, name, _timed(watch, step, getattr(owner, name))))
        yield


def _timed(watch: Stopwatch, step: str, function: Callable[..., Any]) -> Callable[..., Any]:
    # A plain function, so that it binds when it stands for a method.
    def call(*args: Any, **options: Any) -> Any:
        return watch.around(step, function)(*args, **options)

    return call


@contextmanager
def peak_memory() -> Iterator[list[float]]:
    """Peak of the resident memory of this process and its children together, in MB, looked at 20 times a second."""
    peak, stop, process = [0.0], threading.Event(), psutil.Process()

    def watch() -> None:
        while not stop.wait(0.05):
            total = 0
            for each in [process, *process.children(recursive=True)]:
                try:
                    total += each.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            peak[0] = max(peak[0], total / 1e6)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=4096, help="map pixels a side")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--tolerance-um", type=float, default=None)
    parser.add_argument("--objects", choices=["regions", "classes"], default="regions")
    parser.add_argument("--folder", type=Path, help="keep the store and the result there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        store, out = folder / f"natural-{options.size}.ome.zarr", folder / "natural.geojson.gz"
        density = write_store(store, options.size) if not store.exists() else float("nan")
        own_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        watch = Stopwatch()
        with peak_memory() as peak, timed_steps(watch):
            began, cpu_before = time.perf_counter(), _cpu_seconds()
            result = vectorize(
                store, out, tolerance_um=options.tolerance_um, objects=options.objects, workers=options.workers
            )
            seconds = time.perf_counter() - began
        cpu_seconds = _cpu_seconds() - cpu_before
        print(f"map: {options.size} x {options.size} px, {density:.1%} pixel sides between labels per pixel")
        print(
            f"{seconds:.1f} s with {options.workers} worker(s): {options.size**2 / seconds / 1e6:.2f} Mpx/s; "
            f"{cpu_seconds:.1f} s of processor time: {options.size**2 / cpu_seconds / 1e6:.2f} Mpx/s per core"
        )
        print(f"peak memory of all processes: {peak[0]:.0f} MB (of this one before: {own_before:.0f} MB)")
        print(
            f"{sum(result.objects.values())} objects, {result.n_vertices} vertices, {result.json_bytes / 1e6:.1f} MB "
            f"of GeoJSON, {out.stat().st_size / 1e6:.1f} MB compressed; "
            f"changed by cleaning: {result.changed_fraction:.2%}"
        )
        for step, spent in sorted(watch.seconds.items(), key=lambda item: -item[1]):
            print(f"  {spent / seconds:6.1%}  {step}")


if __name__ == "__main__":
    main()
