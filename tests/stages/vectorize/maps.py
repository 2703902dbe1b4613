"""Label maps and stores for the tests of vectorizing, and the way back from features to pixels."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.features import rasterize
from rasterio.transform import Affine
from scipy.ndimage import gaussian_filter

from sampath_wsi.classes import TissueClass
from sampath_wsi.geometry import TileGrid
from sampath_wsi.options import VectorizeOptions
from sampath_wsi.stages.vectorize.objects import FeatureSpool
from sampath_wsi.stages.vectorize.source import MapFrame, Source
from sampath_wsi.stages.vectorize.stage import draw_map
from sampath_wsi.stages.vectorize.survey import MapRegions
from sampath_wsi.stores.provenance import ModelRecord, Provenance
from sampath_wsi.stores.store import GrowingStore
from tests.helpers import make_grid, slide_record

CLASSES = tuple(
    TissueClass(name=name, color=color)
    for name, color in (
        ("Tumor", (200, 0, 0)),
        ("Stroma", (150, 200, 150)),
        ("Immune cells", (160, 90, 160)),
        ("Necrosis", (50, 50, 50)),
        ("Other", (255, 200, 0)),
    )
)


@dataclass(frozen=True)
class ArrayInMemory:
    """An array that is read by windows."""

    values: NDArray[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.values.dtype

    def read(self, *window: slice) -> NDArray[Any]:
        return self.values[window]


def in_memory(
    labels: NDArray[np.uint8],
    probability: NDArray[Any] | None = None,
    *,
    classes: tuple[TissueClass, ...] = CLASSES,
    mpp_map: float = 2.0,
    frame: MapFrame = MapFrame((1.0, 1.0), (0.0, 0.0)),  # noqa: B008 - is frozen
) -> Source:
    """A class map in memory; without probabilities every pixel is certain."""
    if probability is None:
        probability = np.where(labels == np.arange(1, len(classes) + 1)[:, None, None], np.uint8(255), np.uint8(0))
    return Source(ArrayInMemory(labels), ArrayInMemory(probability), classes, "f" * 64, mpp_map, frame)


@dataclass(frozen=True)
class Drawn:
    """What vectorizing a label map gave."""

    data: list[bytes]
    spool: FeatureSpool
    regions: MapRegions
    source: Source

    @property
    def features(self) -> list[dict[str, Any]]:
        return [json.loads(each) for each in self.data]

    @property
    def polygons(self) -> NDArray[np.object_]:
        return np.array([shapely.from_geojson(json.dumps(f["geometry"])) for f in self.features], dtype=object)

    @property
    def labels(self) -> NDArray[np.int64]:
        names = [c.name for c in self.source.classes]
        found = [names.index(f["properties"]["classification"]["name"]) + 1 for f in self.features]
        return np.array(found, dtype=np.int64)

    def rasterized(self, shape: tuple[int, int]) -> NDArray[np.uint8]:
        """Back to the map: a pixel has the label of the polygon in which its centre lies."""
        frame = self.source.frame
        (scale_x, scale_y), (x, y) = frame.scale_level0_px_per_map_px, frame.offset_level0_px
        pairs = list(zip(self.polygons, self.labels.tolist(), strict=True))
        if not pairs:
            return np.zeros(shape, np.uint8)
        return rasterize(pairs, shape, dtype=np.uint8, transform=Affine(scale_x, 0, x, 0, scale_y, y))


def draw(
    label_map: NDArray[np.uint8],
    *,
    chunk: int = 1024,
    tolerance: float = 0.0,
    min_area: float = 0.0,
    min_hole: float = 0.0,
    probability: NDArray[Any] | None = None,
    classes: tuple[TissueClass, ...] = CLASSES,
    scale: tuple[float, float] = (1.0, 1.0),
    offset: tuple[float, float] = (0.0, 0.0),
    mpp_map: float = 2.0,
    max_vertices: int = 0,
    **options: Any,
) -> Drawn:
    """Vectorize a label map in memory; lengths and areas in map pixels."""
    source = in_memory(label_map, probability, classes=classes, mpp_map=mpp_map, frame=MapFrame(scale, offset))
    drawing = VectorizeOptions(
        tolerance=tolerance * mpp_map,
        min_area=min_area * mpp_map**2,
        min_hole=min_hole * mpp_map**2,
        max_vertices=max_vertices,
        **options,
    )
    with tempfile.TemporaryFile() as file:
        spool = FeatureSpool(file)
        regions = draw_map(source, drawing, spool, chunk_map_px=chunk)
        return Drawn(list(spool), spool, regions, source)


def natural_map(height: int, width: int, *, seed: int, classes: int = 5, sigma: float = 12, glass: bool = True) -> Any:
    """Label map with shapes as tissue has them: the greatest of smoothed noise fields."""
    rng = np.random.default_rng(seed)
    fields = [gaussian_filter(rng.standard_normal((height, width)), sigma) for _ in range(classes + glass)]
    fine = [gaussian_filter(rng.standard_normal((height, width)), 3) for _ in fields]
    scores = [a / a.std() + 0.15 * b / b.std() for a, b in zip(fields, fine, strict=True)]
    return (np.argmax(scores, axis=0) + (0 if glass else 1)).astype(np.uint8)


def ascii_map(text: str) -> NDArray[np.uint8]:
    """A label map drawn as lines of digits; a dot is 0."""
    lines = [line.strip().replace(".", "0") for line in text.strip().splitlines()]
    return np.array([[int(digit) for digit in line] for line in lines], dtype=np.uint8)


def write_segmentation(
    path: Path,
    label_map: NDArray[np.uint8],
    probability: NDArray[Any] | None = None,
    *,
    mpp: tuple[float, float] = (0.25, 0.25),
    qupath_offset: tuple[float, float] = (0, 0),
    corner: tuple[int, int] = (0, 0),
    classes: tuple[TissueClass, ...] = CLASSES,
) -> TileGrid:
    """A finished segmentation store whose map has 2 um a pixel; ``corner`` is the tiled region's on the slide."""
    height, width = label_map.shape
    size = (round(width * 2 / mpp[0]), round(height * 2 / mpp[1]))
    whole = (size[0] + corner[0], size[1] + corner[1])
    grid = make_grid(whole, mpp=mpp, region=(*corner, *size))
    assert grid.map_size_map_px == (width, height)
    if probability is None:
        probability = np.zeros((len(classes), height, width), np.uint8)
        for channel in range(len(classes)):
            probability[channel][label_map == channel + 1] = 255
    model = ModelRecord(name="test", weights_sha256="0", classes=classes)
    made_by = Provenance("segmentation", slide_record(qupath_offset=qupath_offset), grid, model=model)
    store = GrowingStore.begin(path, made_by)
    for name, values, axes in (("0", probability, "cyx"), ("labels/classes/0", label_map, "yx")):
        leading = values.shape[:-2]
        store.array(
            name,
            shape=values.shape,
            dtype=values.dtype,
            chunks=(*(1 for _ in leading), 256, 256),
            shards=(*leading, 512, 512),
            dimension_names=tuple(axes),
        )[:] = values
    store.finish()
    return grid
