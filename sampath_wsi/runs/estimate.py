"""Estimate how long a slide takes here, and how much disk: from earlier results, or measured on the spot."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from numcodecs.blosc import Blosc  # type: ignore[import-untyped]
from numpy.typing import NDArray

from sampath_wsi.cohort.table import read_json
from sampath_wsi.geometry import TileGrid
from sampath_wsi.progress import Progress, stepper
from sampath_wsi.slides import SlideReader
from sampath_wsi.stages.infer.stage import ReadyModel

_TILES_READ = 6
_ENOUGH_S = 3.0
_ENOUGH_SLIDES = 3
# Stage 1 has two threads unless told otherwise.
_TILE_THREADS = 2
# Stitching and vectorizing, from benchmarks/map.py on two cores; start of four processes, and the report.
_S_A_MAP_MPX = 0.1
_START_S = 12.0


@dataclass(frozen=True)
class Estimate:
    """Time and disk that segmenting a slide takes.

    Parameters
    ----------
    seconds
        By stage; ``rest`` is stitching, vectorizing, pictures, and the start of programs.
    results_bytes
        Disk that results take.
    tiles_bytes
        Disk that is needed besides until the tiles are predicted.
    device
        Where the model runs.
    how
        The measurements that the estimate rests on, for people.
    """

    seconds: dict[str, float]
    results_bytes: int
    tiles_bytes: int
    device: str
    how: str


def estimate(
    reader: SlideReader, grid: TileGrid, model: ReadyModel, results: Path | None, progress: Progress | None
) -> Estimate:
    """Estimate time and disk of a slide for a model.

    Parameters
    ----------
    grid
        The slide's tiles that hold tissue; at least one.
    results
        Earlier results; None measures.
    """
    pixels, read_s = _read_some(reader, grid, progress)
    count, map_mpx = len(grid.tiles), np.prod(grid.map_size_map_px) / 1e6
    known = [] if results is None else _seconds_a_tile(results, model)
    if len(known) >= _ENOUGH_SLIDES:
        infer_s = median(known) * count
        how = f"{len(known)} slides in {results} by this model on {model.device}; {len(pixels)} tiles read now"
        # Maps of tissue shrink to about a third.
        packed = len(model.spec.classes) * grid.tile_map_px**2 / 3
    else:
        predicted, load_s, tile_s, packed = _predict_some(pixels, model, progress)
        infer_s = load_s + tile_s * count
        how = f"measured now: {len(pixels)} tiles read, {predicted} predicted"
    rest_s = _START_S + _S_A_MAP_MPX * float(map_mpx)
    a_value = packed / (len(model.spec.classes) * grid.tile_map_px**2)
    segmentation = a_value * np.prod(grid.map_size_map_px) * (len(model.spec.classes) + 1) * 4 / 3
    covered = min(1.0, count * grid.step_map_px**2 / float(np.prod(grid.map_size_map_px)))
    return Estimate(
        seconds={"tile": read_s * count / _TILE_THREADS, "infer": infer_s, "rest": rest_s},
        results_bytes=round(packed * count + segmentation * covered),
        tiles_bytes=round(_packed_bytes(pixels) / len(pixels) * count),
        device=model.device,
        how=how,
    )


def _read_some(reader: SlideReader, grid: TileGrid, progress: Progress | None) -> tuple[NDArray[np.uint8], float]:
    """Read some tiles from all over the slide; return them and the seconds that one took in one thread."""
    positions = np.unique(np.linspace(0, len(grid.tiles) - 1, _TILES_READ).astype(int))
    size = (grid.tile_model_px, grid.tile_model_px)
    step = stepper(progress, len(positions), "tiles read")
    begun, found = time.monotonic(), []
    for position in positions:
        found.append(reader.read(grid.tile_box_level0_px(grid.tiles[position]), size, what="a tile"))
        step()
        if time.monotonic() - begun > _ENOUGH_S:
            break
    return np.stack(found), (time.monotonic() - begun) / len(found)


def _predict_some(
    pixels: NDArray[np.uint8], model: ReadyModel, progress: Progress | None
) -> tuple[int, float, float, float]:
    """Return how many tiles were predicted, seconds to load the model and to predict a tile, and bytes of a tile."""
    step = stepper(progress, 3, "timings of the model")
    begun = time.monotonic()
    predict = model.load(model.computed.precision)
    load_s = time.monotonic() - begun
    step()
    # Whole batches, as stage 2 has them; the first one is slower than all others.
    batch = np.resize(pixels, (model.computed.batch, *pixels.shape[1:]))
    seconds: list[float] = []
    while not seconds or (len(seconds) < 2 and seconds[0] < _ENOUGH_S):
        begun = time.monotonic()
        probability, _ = predict(batch)
        seconds.append(time.monotonic() - begun)
        step()
    count = len(batch)
    return len(seconds) * count, load_s, min(seconds) / count, _packed_bytes(probability) / count


def _packed_bytes(array: NDArray[np.uint8]) -> int:
    """Return about the bytes in a store: tiles are packed by lz4, everything else better."""
    return len(Blosc(cname="lz4", clevel=1, shuffle=Blosc.NOSHUFFLE).encode(np.ascontiguousarray(array)))


def _seconds_a_tile(results: Path, model: ReadyModel) -> list[float]:
    """Return the times of the slides there that this model segmented on such a device without a break."""
    found = []
    for path in results.glob("slides/*/summary.json"):
        summary, record = read_json(path), read_json(path.parent / "run" / "infer.json")
        same = summary.get("weights_sha256") == model.spec.weights_sha256 and record.get("device") == model.device
        if same and record.get("computed") and record.get("computed") == record.get("tiles"):
            found.append(record["seconds"] / record["tiles"])
    return found
