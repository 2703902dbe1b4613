"""Makers of small grids, stores and slides for the tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from sampath_wsi.geometry import TileGrid, Tiling
from sampath_wsi.model.card import ModelSpec
from sampath_wsi.options import TileOptions
from sampath_wsi.probability import to_bytes
from sampath_wsi.slides import inspect_slide
from sampath_wsi.stages.infer.stage import Batch, PredictorLike, ReadyModel
from sampath_wsi.stages.tile import TileRequest, TileResult, tile_slide
from sampath_wsi.stores.provenance import Computed, ModelRecord, Provenance, SlideRecord
from sampath_wsi.stores.store import GrowingStore

CLASSES = (
    {"name": "A", "color": [200, 0, 0]},
    {"name": "B", "color": [0, 200, 0]},
    {"name": "C", "color": [0, 0, 200]},
)


def make_grid(
    size: tuple[int, int] = (1000, 700),
    mpp: tuple[float, float] = (0.25, 0.25),
    mpp_model: float = 0.5,
    tile: int = 64,
    overlap: int = 16,
    stride: int = 4,
    region: tuple[int, int, int, int] | None = None,
) -> TileGrid:
    """A grid with every tile kept."""
    return TileGrid.plan(
        slide_size_level0_px=size,
        mpp=mpp,
        mpp_source="metadata",
        region_level0_px=region or (0, 0, *size),
        tiling=Tiling(mpp_model, tile, overlap, stride),
    )


def slide_record(name: str = "a", qupath_offset: tuple[int, int] = (0, 0)) -> SlideRecord:
    return SlideRecord(
        id=name,
        name=f"{name}.tif",
        vendor="generic-tiff",
        fingerprint="0" * 64,
        qupath_offset_level0_px=qupath_offset,
    )


def random_probability(rng: np.random.Generator, count: int, classes: int, size: int) -> NDArray[np.float32]:
    """``(tile, class, y, x)`` that sum to 1 over the classes."""
    raw = rng.gamma(0.5, size=(count, classes, size, size)) + 1e-9
    return (raw / raw.sum(1, keepdims=True)).astype(np.float32)


def write_probabilities(
    path: Path,
    grid: TileGrid,
    probability: NDArray[np.floating],
    tissue: NDArray[np.uint8] | None = None,
    slide: SlideRecord | None = None,
) -> Path:
    """A finished probability store; uint8 unless the array is float64."""
    dtype = np.float32 if probability.dtype == np.float64 else np.uint8
    stored = probability.astype(np.float32) if dtype is np.float32 else to_bytes(probability, 1)
    classes = [dict(CLASSES[k % 3], name=f"class {k}") for k in range(probability.shape[1])]
    made_by = Provenance(
        "probabilities",
        slide or slide_record(),
        grid,
        model=ModelRecord(name="test", weights_sha256="0", classes=classes),  # type: ignore[arg-type]
        computed=Computed(precision="fp32", batch=4),
    )
    store = GrowingStore.begin(path, made_by)
    shape = (len(grid.tiles), *probability.shape[1:])
    chunk = (1, *shape[1:])
    array = store.array(
        "probability",
        shape=shape,
        dtype=dtype,
        chunks=chunk,
        shards=(4, *shape[1:]),
        dimension_names=("tile", "class", "y", "x"),
    )
    array[:] = stored
    mask = np.full((8, 8), 255, np.uint8) if tissue is None else tissue
    scale = [grid.region_width_level0_px / mask.shape[1], grid.region_height_level0_px / mask.shape[0]]
    store.array(
        "tissue",
        shape=mask.shape,
        dtype=np.uint8,
        chunks=mask.shape,
        shards=mask.shape,
        dimension_names=("y", "x"),
        attributes={"px_level0_px": scale},
    )[:] = mask
    store.finish()
    return path


def write_slide(path: Path, rgb: NDArray[np.uint8], mpp: float | None = 0.5, levels: int = 1) -> Path:
    """A tiled TIFF that OpenSlide opens, with levels halved by striding."""
    resolution = {} if mpp is None else {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
    path.parent.mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(path) as writer:
        for level in range(levels):
            data = np.ascontiguousarray(rgb[:: 2**level, :: 2**level])
            extra = resolution if level == 0 else {}
            writer.write(data, tile=(128, 128), photometric="rgb", subfiletype=int(level > 0), metadata=None, **extra)
    return path


def blob_slide(path: Path, size: int = 600, mpp: float | None = 0.5) -> Path:
    """A white slide with a pink disc of 0.2 mm radius at most."""
    y, x = np.mgrid[:size, :size]
    inside = (x - size / 2) ** 2 + (y - size / 2) ** 2 < (size / 3) ** 2
    rgb = np.full((size, size, 3), 245, np.uint8)
    rgb[inside] = (200, 120, 170)
    return write_slide(path, rgb, mpp)


class ColourModel:
    """Stands in for a network where only the pipeline is tested: the class follows from a tile's mean colours."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        self.calls: list[int] = []

    def __call__(self, rgb: NDArray[np.uint8]) -> Batch:
        self.calls.append(len(rgb))
        stride, classes = self.spec.output_stride, len(self.spec.classes)
        count, height, width = rgb.shape[:3]
        small = rgb.reshape(count, height // stride, stride, width // stride, stride, 3).mean((2, 4))
        scores = np.stack([small[..., k % 3] + 1 for k in range(classes)], 1)
        return to_bytes(scores / scores.sum(1, keepdims=True), 1), np.full((count, classes), 0.5, np.float32)


def model_spec(grid: TileGrid) -> ModelSpec:
    return ModelSpec("colour", "f" * 64, CLASSES, grid.mpp_model, grid.tile_model_px, grid.output_stride)  # type: ignore[arg-type]


# A model of tiles so small that little slides have many.
SPEC = ModelSpec("colour", "f" * 64, CLASSES, 0.5, 64, 4, 16)  # type: ignore[arg-type]


def tile(slide: Path, out: Path, **options: object) -> TileResult:
    """Stage 1 for :data:`SPEC`."""
    return tile_slide(TileRequest(inspect_slide(slide), "a", SPEC, TileOptions(**options)), out)  # type: ignore[arg-type]


def ready(
    spec: ModelSpec, load: Callable[[], PredictorLike], *, precision: str = "fp32", batch: int = 4, asked: str = "auto"
) -> ReadyModel:
    """A model on a device which chooses this precision and batch."""
    computed = Computed(precision=precision, batch=batch)
    return ReadyModel(spec, "a device", asked, computed, lambda precision: load())


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too, but those that tell how a run went."""
    files = {str(p.relative_to(folder)): p for p in folder.rglob("*") if p.is_file()}
    return {name: p.read_bytes() for name, p in files.items() if "run" not in Path(name).parts}
