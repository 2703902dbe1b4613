"""A synthetic probability store, as inference writes it, of a slide of any size: the input of ``map.py``.

Tissue has a natural outline; the classes inside follow from one continuous random field that repeats every few
millimetres, so that the tiles agree where they overlap and even a large store is written within seconds.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sampath_wsi.geometry import TileGrid, Tiling
from sampath_wsi.probability import to_bytes
from sampath_wsi.stores.provenance import Computed, ModelRecord, Provenance, SlideRecord
from sampath_wsi.stores.store import GrowingStore

CLASSES = [
    {"name": "Tumor", "color": [200, 0, 0]},
    {"name": "Stroma", "color": [150, 200, 150]},
    {"name": "Immune cells", "color": [160, 90, 160]},
    {"name": "Necrosis", "color": [50, 50, 50]},
    {"name": "Other", "color": [255, 200, 0]},
]
# Octaves of noise (lattice constant in map pixels of 2 um, weight): compartments of tissue, their ragged borders, and
# specks. Borders are as long as on the synthetic demo slide ("natural": 4 pixel sides between labels in 100 px) and as
# on a real slide under a model that does not know its tissue ("dense": 22).
SHAPES = {"natural": ((48, 1.0), (10, 0.2)), "dense": ((48, 1.0), (10, 0.2), (3, 0.5))}
_TISSUE_OCTAVES_PX = ((500, 1.0), (40, 0.1))
TISSUE_PX_LEVEL0_PX = 32
_PERIOD_TILES = 8
_BATCH = 16


def plan_grid(width_level0_px: int, height_level0_px: int) -> TileGrid:
    """The grid of a slide of 0.25 um a pixel: tiles of 1024 at 0.5 um/px, overlap 128, a map of 2 um/px."""
    return TileGrid.plan(
        slide_size_level0_px=(width_level0_px, height_level0_px),
        mpp=(0.25, 0.25),
        mpp_source="metadata",
        region_level0_px=(0, 0, width_level0_px, height_level0_px),
        tiling=Tiling(mpp_model=0.5, tile_model_px=1024, overlap_model_px=128, output_stride=4),
    )


def write_probabilities(path: Path, grid: TileGrid, tissue_share: float, shapes: str, seed: int = 0) -> TileGrid:
    """Write the store; returns the grid with the tiles that hold tissue."""
    rng = np.random.default_rng(seed)
    tissue = tissue_mask(grid, tissue_share, rng)
    grid = grid.keep(_tiles_with_tissue(grid, tissue))
    pattern = probability_pattern(_PERIOD_TILES * grid.step_map_px, SHAPES[shapes], rng)
    slide = SlideRecord(
        id="benchmark", name="benchmark", vendor="none", fingerprint="0" * 64, qupath_offset_level0_px=(0, 0)
    )
    model = ModelRecord.model_validate({"name": "benchmark", "weights_sha256": "0", "classes": CLASSES})
    computed = Computed(precision="fp32", batch=_BATCH)
    store = GrowingStore.begin(path, Provenance("probabilities", slide, grid, model=model, computed=computed))
    size, count = grid.tile_map_px, len(grid.tiles)
    probability = store.array(
        "probability",
        shape=(count, len(CLASSES), size, size),
        dtype=np.uint8,
        chunks=(1, len(CLASSES), size, size),
        shards=(_BATCH, len(CLASSES), size, size),
        dimension_names=("tile", "class", "y", "x"),
    )
    for first in range(0, count, _BATCH):
        places = [grid.row_column(tile) for tile in grid.tiles[first : first + _BATCH]]
        corners = [
            (row % _PERIOD_TILES * grid.step_map_px, col % _PERIOD_TILES * grid.step_map_px) for row, col in places
        ]
        probability[first : first + _BATCH] = np.stack([pattern[:, y : y + size, x : x + size] for y, x in corners])
    mask = store.array(
        "tissue",
        shape=tissue.shape,
        dtype=np.uint8,
        chunks=(1024, 1024),
        shards=(1024, 1024),
        dimension_names=("y", "x"),
        attributes={"px_level0_px": [TISSUE_PX_LEVEL0_PX, TISSUE_PX_LEVEL0_PX]},
    )
    mask[:] = tissue
    store.finish()
    return grid


def probability_pattern(
    period_px: int, octaves: tuple[tuple[int, float], ...], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """``(class, y, x)`` bytes that sum to 255, one period and a tile's overlap wide."""
    size = period_px + period_px // _PERIOD_TILES
    scores = [_noise((size, size), period_px, octaves, rng) for _ in CLASSES]
    weight = np.exp(4 * (np.stack(scores) - np.max(scores, axis=0)))
    found: NDArray[np.uint8] = to_bytes(weight / weight.sum(axis=0), 0)
    return found


def tissue_mask(grid: TileGrid, share: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A soft mask of 8 um a pixel: 128 or more is tissue."""
    shape = (
        -(-grid.region_height_level0_px // TISSUE_PX_LEVEL0_PX),
        -(-grid.region_width_level0_px // TISSUE_PX_LEVEL0_PX),
    )
    if share >= 1:
        return np.full(shape, 255, np.uint8)
    height = _noise(shape, 3200, _TISSUE_OCTAVES_PX, rng)
    above = (height - np.quantile(height[::8, ::8], 1 - share)) * 40
    return np.clip(128 + 128 * above, 0, 255).astype(np.uint8)


def _noise(
    shape: tuple[int, int], period_px: int, octaves: tuple[tuple[int, float], ...], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Smooth noise that repeats every ``period_px``: cubic splines through random lattices."""
    found = np.zeros(shape, np.float32)
    for lattice_px, weight in octaves:
        n = round(period_px / lattice_px)
        values = weight * rng.standard_normal((n, n)).astype(np.float32)
        down, across = (_splines(length, period_px, n) for length in shape)
        found += down @ values @ across.T
    return found


def _splines(length: int, period_px: int, n: int) -> NDArray[np.float32]:
    """``(length, n)``: the weight of each of ``n`` periodic lattice points at every pixel."""
    distance = (np.arange(length)[:, None] * n / period_px - np.arange(n)) % n
    distance = np.minimum(distance, n - distance)
    near, far = 2 / 3 - distance**2 * (1 - distance / 2), np.clip(2 - distance, 0, None) ** 3 / 6
    return np.where(distance < 1, near, far).astype(np.float32)


def _tiles_with_tissue(grid: TileGrid, tissue: NDArray[np.uint8]) -> list[int]:
    kept = []
    for tile in grid.tiles:
        box = grid.tile_box_level0_px(tile).scaled(1 / TISSUE_PX_LEVEL0_PX)
        if (tissue[int(box.y) : int(box.bottom), int(box.x) : int(box.right)] >= 128).any():
            kept.append(tile)
    return kept
