"""Tile objects: the class probabilities of every tile's own square, for QuPath's measurement maps.

Tiles overlap, so each owns the square up to the middle of its overlaps: the squares meet without gaps. QuPath draws
tile objects from cached pictures and colours them by any measurement, thousands at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import numpy as np
from numpy.typing import NDArray

from sampath_wsi.geometry import TileGrid
from sampath_wsi.options import VectorizeOptions
from sampath_wsi.options.stages import Frame
from sampath_wsi.probability import entropy_term_bit
from sampath_wsi.progress import Progress, stepper
from sampath_wsi.qupath import ObjectWriter, encode_object
from sampath_wsi.stages.vectorize.source import Source, Window, open_source, rounded_box, windows

_NAMESPACE = UUID("3f1f2a4e-9c44-4a3c-8a55-6d0e7a3c5b10")
_WINDOW_MAP_PX = 1024

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class TileObjectsResult:
    """The result of :func:`write_tile_objects`.

    Parameters
    ----------
    path
        The GeoJSON file.
    tiles
        Number of tile objects by their most frequent class.
    left_out
        Tiles whose own square holds no pixel with a class that makes objects: their classes lie in the
        overlaps, or outside the tissue.
    frame
        As used.
    """

    path: Path
    tiles: dict[str, int]
    left_out: int
    frame: Frame


@dataclass
class TileSums:
    """Sums over the pixels with a class of every cell, ``(rows, columns, ...)``.

    Parameters
    ----------
    count
        ``(rows, columns, class)`` pixels by their own class.
    probability
        ``(rows, columns, class)``.
    entropy_bit
        ``(rows, columns)``.
    """

    count: Ints
    probability: NDArray[np.float64]
    entropy_bit: NDArray[np.float64]


def write_tile_objects(
    segmentation_path: Path, out: Path, *, frame: Frame = "qupath", progress: Progress | None = None
) -> TileObjectsResult:
    """Write one tile object for every tile that holds tissue, with the mean probability of each class in its square.

    Measurements: ``Prob: <Class>`` and ``Entropy %`` are means over the pixels that have a class; ``Tissue %`` is their
    share of the square. Entropy is 0 where one class is certain and 100 where all are equally likely, as in
    ``entropy.ome.tif``. The class of an object is the one that most of its pixels have; classes whose name ends in
    ``*`` make no objects.

    Parameters
    ----------
    segmentation_path
        A finished ``segmentation.ome.zarr``.
    out
        The file to write: ``.geojson.gz``, ``.geojson`` or ``.json``; put in place when whole.
    frame
        As for :class:`sampath_wsi.options.VectorizeOptions`.

    Raises
    ------
    ConfigError
        If an option makes no sense.
    StoreError
        If there is no finished segmentation store, or it is damaged, or another process is writing ``out``.
    """
    source, grid = open_source(segmentation_path, VectorizeOptions.of({"frame": frame}, "tile-objects").frame)
    columns, rows = cell_edges(grid)
    writer = ObjectWriter(Path(out))
    with writer:
        sums = sum_tiles(source, columns, rows, progress=progress)
        tiles = {c.name: 0 for c in source.classes if not c.ignored}
        for name, feature in _features(grid, source, columns, rows, sums):
            writer.write(feature)
            tiles[name] += 1
    return TileObjectsResult(Path(out), tiles, len(grid.tiles) - writer.count, frame)


def cell_edges(grid: TileGrid) -> tuple[Ints, Ints]:
    """Find where the tiles' own squares begin and end in map pixels: ``(columns + 1,)`` x and ``(rows + 1,)`` y.

    A square reaches to the middle of the overlaps, and at the map's border to the border.
    """
    shift = (grid.tile_map_px - grid.step_map_px) // 2
    width, height = grid.map_size_map_px

    def edges(count: int, size: int) -> Ints:
        inner = np.arange(1, count) * grid.step_map_px + shift
        return np.concatenate([np.zeros(1, np.int64), inner, np.full(1, size)])

    return edges(grid.columns, width), edges(grid.rows, height)


def sum_tiles(
    source: Source,
    columns: Ints,
    rows: Ints,
    *,
    window_map_px: int = _WINDOW_MAP_PX,
    progress: Progress | None = None,
) -> TileSums:
    """Add up a class map by cells; every pixel is read once, and nothing larger than a window is in memory.

    Parameters
    ----------
    columns, rows
        Edges of the cells, as :func:`cell_edges` gives them.
    """
    shape, n = (len(rows) - 1, len(columns) - 1), len(source.classes)
    sums = TileSums(np.zeros((*shape, n), np.int64), np.zeros((*shape, n)), np.zeros(shape))
    parts = windows(source.shape, window_map_px)
    step = stepper(progress, len(parts), "windows")
    for window in parts:
        labels = source.labels(window)
        if labels.any():
            _add_window(sums, source, window, labels, columns, rows)
        step()
    return sums


def _add_window(
    sums: TileSums, source: Source, window: Window, labels: NDArray[np.uint8], columns: Ints, rows: Ints
) -> None:
    first_row, y = _cells_along(rows, window.y, window.height)
    first_column, x = _cells_along(columns, window.x, window.width)
    cells = slice(first_row, first_row + len(y)), slice(first_column, first_column + len(x))

    def by_cell(values: NDArray[Any], dtype: type) -> NDArray[Any]:
        summed: NDArray[Any] = np.add.reduceat(np.add.reduceat(values, x, axis=1, dtype=dtype), y, axis=0)
        return summed

    classed = labels > 0
    entropy_bit = np.zeros(labels.shape)
    for k, channel in enumerate(source.probabilities(window)):
        sums.count[(*cells, k)] += by_cell(labels == k + 1, np.int64)
        own = np.where(classed, channel, channel.dtype.type(0))
        sums.probability[(*cells, k)] += by_cell(own, np.float64) / source.probability_unit
        entropy_bit += entropy_term_bit(own)
    sums.entropy_bit[cells] += by_cell(entropy_bit, np.float64)


def _cells_along(edges: Ints, begin: int, length: int) -> tuple[int, Ints]:
    """Find the first cell of a stretch of pixels, and where in the stretch it and the following cells begin."""
    first = int(np.searchsorted(edges, begin, side="right")) - 1
    last = int(np.searchsorted(edges, begin + length, side="left"))
    return first, np.maximum(edges[first:last] - begin, 0)


def _features(grid: TileGrid, source: Source, columns: Ints, rows: Ints, sums: TileSums) -> Iterator[tuple[str, bytes]]:
    """Yield the class and the encoded object of every tile that makes one, in the order of the tiles."""
    usable = source.makes_objects[1:]
    most_bit = math.log2(max(2, len(usable)))
    for tile in grid.tiles:
        row, column = grid.row_column(tile)
        count = sums.count[row, column]
        n_classed = int(count.sum())
        best = int(np.argmax(np.where(usable, count, -1)))
        corners = np.array([(columns[column], rows[row]), (columns[column + 1], rows[row + 1])])
        # A square ends with the slide.
        square = rounded_box(np.minimum(source.frame.to_level0_px(corners), source.frame.far_corner_level0_px))
        if count[best] == 0 or not usable[best] or square.area == 0:
            continue
        mean = sums.probability[row, column] / n_classed
        measured = {f"Prob: {c.name}": round(float(p), 4) for c, p in zip(source.classes, mean, strict=True)}
        measured["Entropy %"] = round(100 * float(sums.entropy_bit[row, column]) / n_classed / most_bit, 2) + 0.0
        measured["Tissue %"] = round(100 * n_classed / float(np.prod(corners[1] - corners[0])), 2)
        region = f"{grid.region_x_level0_px},{grid.region_y_level0_px}"
        place = ",".join(f"{edge * grid.mpp_map:g}" for edge in corners.ravel())
        data = encode_object(
            square,
            uuid=uuid5(_NAMESPACE, f"{source.fingerprint}/{region}/{place}"),
            tissue_class=source.classes[best],
            object_type="tile",
            name=f"Tile {row + 1}, {column + 1}",
            measurements=measured,
        )
        yield source.classes[best].name, data
