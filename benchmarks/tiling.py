"""Speed of reading and tiling slides, and OpenSlide's for the same pixels.

    python benchmarks/tiling.py [--slide a.svs]

First the whole stage on slides of 1, 4 and 16 times the area. Then reading alone: the model's tiles (1024 px, overlap
128) of a synthetic slide of JPEG tiles, through OpenSlide's read_region and the same resize, and by decoding its native
tiles; one thread and two, level-0 megapixels a second, and whether all pixels are equal. A slide that OpenSlide
alone can read shows that it is not slower there. Then codecs for the tile store.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tifffile
import zarr
from big_slide import MPP, big_slide
from common import measure_command, print_machine, print_table, tree_mb
from numpy.typing import NDArray
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import BloscCodec, ZstdCodec

from sampath_wsi.geometry import Box, TileGrid, Tiling
from sampath_wsi.slides import SlideInfo, SlideReader, inspect_slide
from sampath_wsi.stores.store import create_array, open_store

HERE = Path(__file__).resolve().parent
TILE_PX, OVERLAP_PX, MPP_MODEL, SHARD = 1024, 128, 0.5, 8
CODECS: dict[str, BytesBytesCodec | None] = {
    "none": None,
    "Blosc lz4, level 1": BloscCodec(cname="lz4", clevel=1, shuffle="noshuffle", typesize=1),
    "Blosc lz4, level 5": BloscCodec(cname="lz4", clevel=5, shuffle="noshuffle", typesize=1),
    "Blosc lz4, bitshuffle": BloscCodec(cname="lz4", clevel=1, shuffle="bitshuffle", typesize=1),
    "zstd, level -5": ZstdCodec(level=-5),
    "zstd, level 1": ZstdCodec(level=1),
}


def tiles_of(info: SlideInfo, limit: int) -> tuple[TileGrid, list[int]]:
    """The grid of a slide and the tiles in the middle of it, in whole rows of a block as square as can be."""
    grid = TileGrid.plan(
        slide_size_level0_px=info.size_level0_px,
        mpp=info.mpp,
        mpp_source=info.mpp_source,
        region_level0_px=info.bounds_level0_px,
        tiling=Tiling(MPP_MODEL, TILE_PX, OVERLAP_PX, output_stride=4),
    )
    side = max(1, round(limit**0.5))
    rows, columns = min(side, grid.rows), min(side, grid.columns)
    top, left = (grid.rows - rows) // 2, (grid.columns - columns) // 2
    return grid, [(top + y) * grid.columns + left + x for y in range(rows) for x in range(columns)]


def rate(info: SlideInfo, limit: int, threads: int, direct: bool) -> float:
    """Level-0 megapixels a second."""
    grid, tiles = tiles_of(info, limit)
    boxes = [grid.tile_box_level0_px(tile) for tile in tiles]
    begun = time.perf_counter()
    with SlideReader(info, direct=direct) as reader, ThreadPoolExecutor(threads) as pool:
        reader.expect(boxes, (TILE_PX, TILE_PX))
        for _ in pool.map(lambda box: reader.read(box, (TILE_PX, TILE_PX)).shape, boxes):
            pass
    return len(boxes) * boxes[0].width * boxes[0].height / 1e6 / (time.perf_counter() - begun)


def is_equal(info: SlideInfo, limit: int) -> bool:
    """Whether every pixel is the same through both readers."""
    grid, tiles = tiles_of(info, limit)
    boxes = [grid.tile_box_level0_px(tile) for tile in tiles]
    with SlideReader(info) as ours, SlideReader(info, direct=False) as theirs:
        return all(np.array_equal(*(each.read(box, (TILE_PX, TILE_PX)) for each in (ours, theirs))) for box in boxes)


def compare_readers(cases: Sequence[tuple[str, Path, float | None]], limit: int) -> None:
    print("Reading and resizing, megapixels of level 0 a second:\n")
    rows = []
    for name, path, mpp in cases:
        info = inspect_slide(path, mpp=None if mpp is None else (mpp, mpp))
        pixels = "equal" if is_equal(info, limit) else "DIFFERENT"
        for threads in (1, 2):
            # The best of two, in turn: what else the machine does counts for neither.
            runs = [[rate(info, limit, threads, direct) for direct in (False, True)] for _ in range(2)]
            theirs, ours = (max(rates) for rates in zip(*runs, strict=True))
            rows.append((name, threads, theirs, ours, ours / theirs, pixels))
    print_table(("slide", "threads", "OpenSlide", "direct", "ratio", "pixels"), rows)


def compare_codecs(path: Path) -> None:
    info = inspect_slide(path)
    grid, tiles = tiles_of(info, 16)
    with SlideReader(info) as reader:
        data = np.stack([reader.read(grid.tile_box_level0_px(tile), (TILE_PX, TILE_PX)) for tile in tiles])
    print("Codecs of the tile store, two threads, each with a checksum; tiles a second, and CPU time a tile:\n")
    rows = []
    for name, codec in CODECS.items():
        with tempfile.TemporaryDirectory() as folder:
            # The best of some, as above.
            runs = [write_and_read(Path(folder) / str(k), data, codec) for k in range(5)]
            written, read = (min(costs) for costs in zip(*runs, strict=True))
            size = tree_mb(Path(folder) / "0") * 1e6 / data.nbytes
        cpu_ms = [1e3 * cpu_s / len(data) for _, cpu_s in (written, read)]
        rows.append((name, len(data) / written[0], cpu_ms[0], len(data) / read[0], cpu_ms[1], size))
    print_table(("codec", "written", "CPU, ms", "read", "CPU, ms", "size"), rows)


def write_and_read(path: Path, data: NDArray[np.uint8], codec: BytesBytesCodec | None) -> list[tuple[float, float]]:
    """Seconds and CPU seconds of writing, and of reading."""
    chunk = (1, *data.shape[1:])
    array = create_array(
        zarr.create_group(path, zarr_format=3),
        "rgb",
        shape=data.shape,
        dtype=data.dtype,
        chunks=chunk,
        shards=(SHARD, *chunk[1:]),
        dimension_names=("tile", "y", "x", "channel"),
        codec=codec,
        skip_empty=False,
    )

    def write(first: int) -> None:
        array[first : first + SHARD] = data[first : first + SHARD]

    def read(first: int) -> None:
        assert np.asarray(array[first : first + SHARD])[:, 0].any()

    costs = []
    for job in (write, read):
        begun, cpu = time.perf_counter(), time.process_time()
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(job, range(0, len(data), SHARD)))
        costs.append((time.perf_counter() - begun, time.process_time() - cpu))
    return costs


def whole_stage(sides_px: Sequence[int], slides: Path, folder: Path) -> None:
    print("The whole stage, two threads (wall: with the start of the process; work: tissue, reading, writing):\n")
    rows = []
    for side_px in sides_px:
        slide = big_slide(slides, side_px, side_px)
        cost = measure_command([sys.executable, str(HERE / "trivial.py"), "tile", str(slide), str(folder)])
        work_s = json.loads((folder / "tile.json").read_text())["work_s"]
        tiles, store_mb = len(open_store(folder / "tiles.zarr", "tiles")[1].grid.tiles), tree_mb(folder / "tiles.zarr")
        read_mpx = tiles * (TILE_PX * MPP_MODEL / MPP) ** 2 / 1e6
        name = f"{side_px} x {side_px}"
        rows.append((name, tiles, cost.wall_s, cost.cpu_s, work_s, read_mpx / work_s, cost.peak_mb, store_mb))
        shutil.rmtree(folder / "tiles.zarr")
    print_table(("slide, px", "tiles", "wall, s", "CPU, s", "work, s", "Mpx/s", "peak, MB", "store, MB"), rows)


def write_deflated(source: Path, path: Path, side_px: int) -> Path:
    """The corner of a slide as a TIFF of deflated tiles, which OpenSlide alone reads."""
    with SlideReader(inspect_slide(source)) as reader:
        info = reader.info
        middle = [(length - side_px) // 2 for length in info.size_level0_px]
        pixels = reader.read(Box(*middle, side_px, side_px), (side_px, side_px))
    tifffile.imwrite(
        path,
        pixels,
        tile=(512, 512),
        photometric="rgb",
        compression="deflate",
        resolution=(1e4 / MPP, 1e4 / MPP),
        resolutionunit="CENTIMETER",
        metadata=None,
    )
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slide", type=Path, help="also read tiles of this slide, at its own resolution")
    parser.add_argument("--tiles", type=int, default=16, help="tiles read of each slide")
    parser.add_argument("--folder", type=Path, help="where slides are kept; default: made anew, and removed")
    parser.add_argument(
        "--sides", type=int, nargs="*", default=[10_000, 20_000, 40_000], help="slides of the stage, px"
    )
    arguments = parser.parse_args()
    print_machine("openslide-bin", "imagecodecs", "pillow", "zarr")
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        slide = big_slide(folder, 20_000, 20_000)
        deflated = write_deflated(slide, Path(scratch) / "deflated.tif", 6144)
        cases: list[tuple[str, Path, float | None]] = [
            ("JPEG, 0.25 um/px (2 px to 1)", slide, 0.25),
            ("JPEG, 0.2325 um/px (2.15 to 1)", slide, 0.2325),
            ("JPEG, 0.499 um/px (1.002 to 1)", slide, 0.499),
            ("deflate, 0.25 um/px", deflated, 0.25),
        ]
        if arguments.slide:
            cases.append((arguments.slide.name, arguments.slide, None))
        whole_stage(arguments.sides, folder, Path(scratch))
        compare_readers(cases, arguments.tiles)
        compare_codecs(slide)


if __name__ == "__main__":
    main()
