"""Does the device wait? Stage 2 with a stand-in for a model that takes 5 ms a tile and does not need the CPU.

    python benchmarks/pipeline.py                     # tiles of a synthetic slide of 40,000 x 40,000 px
    python benchmarks/pipeline.py --folder keep       # slide and tiles are kept there for the next time

Tiles of 1024 px come out of a store that stage 1 wrote; class probabilities, such as a model gives, go into a store
with checksums and a journal. Beside it the same as a plain loop: load, compute, write, one after the other. Goal: the
device is busy for 95 % of the time, counted by its nominal 5 ms a tile. The model takes a second to load, as real ones
do at least; that second is not counted, but stage 2 reads its first batches meanwhile.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import trivial
from big_slide import big_slide
from common import print_machine, print_table, watched_memory
from numpy.typing import NDArray

from sampath_wsi.stages.infer.stage import Batch, ReadyModel, infer
from sampath_wsi.stores.provenance import Computed, Provenance
from sampath_wsi.stores.store import GrowingStore, open_store, read_array

SPEC = trivial.model_spec()
MODEL_LOADS_S = 1.0


class StandIn:
    """Sleeps for as long as a device would compute, and returns what a model said of the first tiles."""

    def __init__(self, results: Batch, seconds_a_tile: float) -> None:
        self._results, self._seconds_a_tile = results, seconds_a_tile
        self.took_s = 0.0

    def __call__(self, rgb: NDArray[np.uint8]) -> Batch:
        begun = time.monotonic()
        time.sleep(self._seconds_a_tile * len(rgb))
        self.took_s += time.monotonic() - begun
        probability, iou = self._results
        return probability[: len(rgb)], iou[: len(rgb)]


class Times(NamedTuple):
    """From the first batch asked for: until the last result was there, and until everything was written."""

    computing_s: float
    whole_s: float


def overlapped(tiles: Path, out: Path, device: StandIn, batch: int) -> Times:
    """Stage 2 itself."""

    def load_model() -> StandIn:
        time.sleep(MODEL_LOADS_S)
        return device

    how = Computed(precision="fp32", batch=batch)
    result = infer(tiles, out, ReadyModel(SPEC, "a stand-in", "auto", how, lambda precision: load_model()))
    assert result.busy is not None
    return Times(device.took_s / result.busy, result.seconds)


def sequential(tiles: Path, out: Path, device: StandIn, batch: int) -> Times:
    """The same work as a plain loop."""
    source, made_by = open_store(tiles, "tiles")
    rgb, grid = read_array(source, "rgb"), made_by.grid
    store = GrowingStore.begin(out, Provenance("probabilities", made_by.slide, grid))
    tile = (len(SPEC.classes), grid.tile_map_px, grid.tile_map_px)
    probability = store.array(
        "probability",
        shape=(len(grid.tiles), *tile),
        dtype=np.uint8,
        chunks=(1, *tile),
        shards=(batch, *tile),
        dimension_names=("tile", "class", "y", "x"),
    )
    begun = computed = time.monotonic()
    for first in range(0, len(grid.tiles), batch):
        result, _ = device(np.asarray(rgb[first : first + batch]))
        computed = time.monotonic()
        probability[first : first + batch] = result
        store.mark_done(first)
    store.finish()
    return Times(computed - begun, time.monotonic() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="keep slide and tiles here")
    parser.add_argument("--size", type=int, default=40_000, help="side of the slide in pixels")
    parser.add_argument("--batch", type=int, default=16, help="as on a GPU")
    parser.add_argument("--ms", type=float, default=5.0, help="what the device takes for a tile")
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    print_machine("zarr")
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or Path(scratch)
        slide = big_slide(folder, arguments.size, arguments.size)
        trivial.tile(slide, folder)
        rgb = read_array(open_store(folder / "tiles.zarr", "tiles")[0], "rgb")
        results = trivial.TrivialPredictor()(np.asarray(rgb[: arguments.batch]))
        print(f"{rgb.shape[0]} tiles, {arguments.batch} a batch, {arguments.ms:g} ms a tile on the device\n")
        rows: list[list[object]] = []
        rates: list[float] = []
        for name, way in (("load, compute, write in turn", sequential), ("stage 2", overlapped)):
            for _ in range(arguments.repeat):
                device = StandIn(results, arguments.ms / 1e3)
                with watched_memory() as peak_mb:
                    before_mb = peak_mb[0]
                    times = way(folder / "tiles.zarr", Path(scratch) / "out.zarr", device, arguments.batch)
                shutil.rmtree(Path(scratch) / "out.zarr")
                busy = rgb.shape[0] * arguments.ms / 1e3 / times.computing_s
                rate = rgb.shape[0] / times.whole_s
                rates.append(rate)
                rows.append([name, times.whole_s, rate, f"{100 * busy:.1f} %", peak_mb[0] - before_mb])
        print_table(("way", "wall s", "tiles/s", "device busy", "memory MB"), rows)
        plain, ours = (median(part) for part in (rates[: arguments.repeat], rates[arguments.repeat :]))
        print(f"stage 2: {ours / plain:.2f} times the tiles a second of the plain loop (medians)")


if __name__ == "__main__":
    main()
