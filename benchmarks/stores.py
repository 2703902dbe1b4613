"""Stores: what do zarr, its other codec pipelines and this program's own shard code cost?

``python benchmarks/stores.py`` writes and reads the arrays of the stages (tiles, probabilities, a level of a map) and
stitches a slide, by each means on two threads and in a process of its own; the best of three. Pipelines that are not
installed are left out: ``pip install zarrs`` for Rust's, zarr 3.4 on Python 3.12 or newer for the fused one.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import zarr
from common import print_machine, print_table
from map_store import SHAPES, plan_grid, probability_pattern, write_probabilities
from zarr.codecs import BloscCodec, ZstdCodec

from sampath_wsi.stores.shards import Shards
from sampath_wsi.stores.store import create_array

OURS = "this program's Shards"
PIPELINES = {
    OURS: "zarr.core.codec_pipeline.BatchedCodecPipeline",
    "zarr as it comes": "zarr.core.codec_pipeline.BatchedCodecPipeline",
    "zarr, fused pipeline": "zarr.core.codec_pipeline.FusedCodecPipeline",
    "zarrs": "zarrs.ZarrsCodecPipeline",
}
THREADS = 2

Window = tuple[slice, ...]
Work = Callable[[str, str, Path], None]
"""Called with a means, a layout, and the folder of the stores."""


@dataclass(frozen=True)
class Layout:
    """An array of a stage: ``step`` is what is written at once, ``read`` what is read at once, along each axis."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    step: tuple[int, ...]
    read: tuple[int, ...]
    codec: Any
    skip_empty: bool = True


LAYOUTS = {
    "tiles": Layout(
        (128, 1024, 1024, 3),
        (1, 1024, 1024, 3),
        (8, 1024, 1024, 3),
        (8, 1024, 1024, 3),
        BloscCodec(cname="lz4", clevel=1, shuffle="noshuffle", typesize=1),
        skip_empty=False,
    ),
    # Stitching reads, for a block of 2048 px, ten neighbours of a row of tiles.
    "probabilities": Layout(
        (800, 5, 256, 256), (1, 5, 256, 256), (16, 5, 256, 256), (10, 5, 256, 256), ZstdCodec(level=1)
    ),
    "map": Layout((5, 8192, 8192), (1, 512, 512), (5, 2048, 2048), (5, 1024, 1024), ZstdCodec(level=1)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=60_000, help="level-0 pixels a side of the slide that is stitched")
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    print_machine("numpy", "zarr")
    means = [name for name, path in PIPELINES.items() if _is_there(path)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _in_a_process(_write_contents, folder)
        rows = [
            (layout, work.__name__, name, *_best(arguments.repeat, work, name, layout, folder))
            for layout in LAYOUTS
            for work in (write, read)
            for name in means
            if not (work is write and layout == "tiles" and name == OURS)
        ]
        _in_a_process(_write_slide, folder / "p.zarr", arguments.size)
        rows += [("stage", "stitch", name, *_best(arguments.repeat, stitch, name, "", folder)) for name in means]
        print_table(("array", "work", "by", "s", "CPU s", "peak MB"), rows)


def write(name: str, layout_name: str, folder: Path) -> None:
    """Write an array shard by shard."""
    layout, content = LAYOUTS[layout_name], np.load(folder / f"{layout_name}.npy")
    array = create_array(
        zarr.open_group(folder / f"{layout_name}.zarr", mode="w", zarr_format=3),
        "a",
        shape=layout.shape,
        dtype=np.uint8,
        chunks=layout.chunks,
        shards=layout.step,
        dimension_names=tuple("abcd"[: len(layout.shape)]),
        codec=layout.codec,
        skip_empty=layout.skip_empty,
    )
    shards = Shards(array)

    def write_one(window: Window) -> None:
        if name == OURS:
            shards.write(tuple(w.start // n for w, n in zip(window, layout.step, strict=True)), content)
        else:
            array[window] = content

    _on_threads(write_one, _windows(layout.shape, layout.step))


def read(name: str, layout_name: str, folder: Path) -> None:
    """Read an array window by window, as the next stage does."""
    layout = LAYOUTS[layout_name]
    array = zarr.open_array(folder / f"{layout_name}.zarr" / "a", mode="r")
    shards = Shards(array)

    def read_one(window: Window) -> None:
        if name == OURS:
            shards.read(*window)
        else:
            array[window]

    _on_threads(read_one, _windows(layout.shape, layout.read))


def stitch(name: str, _: str, folder: Path) -> None:
    """Stitch a slide, this program's own shard code replaced by zarr's and a pipeline."""
    from sampath_wsi.stages.stitch.stage import stitch as stitch_store

    with tempfile.TemporaryDirectory(dir=folder) as temporary, ExitStack() as replaced:
        if name != OURS:
            replaced.enter_context(mock.patch.object(Shards, "read", lambda shards, *window: shards.array[window]))
            replaced.enter_context(mock.patch.object(Shards, "write", _write_by_zarr))
        stitch_store(folder / "p.zarr", Path(temporary) / "s.ome.zarr", threads=THREADS)


def _write_by_zarr(shards: Shards, place: tuple[int, ...], block: Any) -> None:
    corner = [at * size for at, size in zip(place, shards.array.shards or shards.chunks, strict=True)]
    shards.array[tuple(slice(a, a + n) for a, n in zip(corner, block.shape, strict=True))] = block


def _write_contents(folder: Path) -> None:
    """Write what is written again and again into each array."""
    rng = np.random.default_rng(0)
    pattern = probability_pattern(2048, SHAPES["natural"], rng)
    # As smooth as tissue, with the noise of a camera.
    rgb = 120 + np.moveaxis(pattern[:3, :1024, :1024], 0, -1) // 2 + rng.integers(-6, 7, (1024, 1024, 3))
    np.save(folder / "tiles.npy", np.repeat(rgb.astype(np.uint8)[None], 8, axis=0))
    corners = [(y, x) for y in range(0, 1024, 256) for x in range(0, 1024, 256)]
    np.save(folder / "probabilities.npy", np.stack([pattern[:, y : y + 256, x : x + 256] for y, x in corners]))
    np.save(folder / "map.npy", pattern[:, :2048, :2048])


def _windows(shape: Sequence[int], step: Sequence[int]) -> Iterator[Window]:
    for place in np.ndindex(*(-(-n // size) for n, size in zip(shape, step, strict=True))):
        yield tuple(slice(p * s, min((p + 1) * s, n)) for p, s, n in zip(place, step, shape, strict=True))


def _on_threads(work: Callable[[Window], None], windows: Iterator[Window]) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, windows))


def _write_slide(path: Path, size: int) -> None:
    write_probabilities(path, plan_grid(size, size), 0.6, "natural")


def _is_there(path: str) -> bool:
    module, _, name = path.rpartition(".")
    try:
        return hasattr(importlib.import_module(module), name)
    except ImportError:
        return False


def _best(repeat: int, work: Work, name: str, layout: str, folder: Path) -> tuple[float, float, float]:
    runs = []
    for _ in range(repeat):
        if work is write:
            shutil.rmtree(folder / f"{layout}.zarr", ignore_errors=True)
        runs.append(_in_a_process(_measured, work, name, layout, folder))
    wall_s, cpu_s, peak_mb = (min(values) for values in zip(*runs, strict=True))
    return wall_s, cpu_s, peak_mb


def _measured(work: Work, name: str, layout: str, folder: Path) -> tuple[float, float, float]:
    """Seconds, seconds of the processor, and the most memory in MB, of work by a means."""
    zarr.config.set({"codec_pipeline.path": PIPELINES[name], "threading.max_workers": THREADS})
    importlib.import_module(PIPELINES[name].rpartition(".")[0])
    before, begun = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    work(name, layout, folder)
    wall_s, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall_s, cpu_s, after.ru_maxrss / 1024


def _in_a_process(function: Callable[..., Any], *arguments: object) -> Any:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


if __name__ == "__main__":
    main()
