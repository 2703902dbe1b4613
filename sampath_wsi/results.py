"""The results of one slide, read back: paths, areas, class map, probabilities, polygons."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sampath_wsi.classes import TissueClass
from sampath_wsi.errors import ConfigError, StoreError
from sampath_wsi.geometry import TileGrid
from sampath_wsi.probability import SCALE
from sampath_wsi.stores import ome
from sampath_wsi.stores.shards import Shards, read_whole
from sampath_wsi.stores.store import open_store, read_array

if TYPE_CHECKING:
    import zarr

    from sampath_wsi.qupath import Annotation


@dataclass(frozen=True)
class Segmentation:
    """The results of one slide, in a folder as the workflow leaves it (``results/slides/NAME``).

    Nothing is read before it is asked for.
    """

    folder: Path

    @property
    def geojson(self) -> Path:
        """The objects, for QuPath."""
        return self.folder / "segmentation.geojson.gz"

    @property
    def store(self) -> Path:
        """Class probabilities and class map: OME-Zarr 0.5."""
        return self.folder / "segmentation.ome.zarr"

    @property
    def probabilities(self) -> Path:
        """The model's output, tile by tile."""
        return self.folder / "probabilities.zarr"

    @property
    def overlay(self) -> Path:
        """The picture."""
        return self.folder / "overlay.png"

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Areas, model, warnings and course, as in ``summary.json``.

        Raises
        ------
        StoreError
            If it is missing or damaged.
        """
        path = self.folder / "summary.json"
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise StoreError(f"{path}: cannot be read ({error})", "Segment the slide again.") from None
        assert isinstance(found, dict)
        return found

    @property
    def class_areas_mm2(self) -> dict[str, float]:
        """The area of each class."""
        return {name: entry["area_mm2"] for name, entry in self.summary["classes"].items()}

    @cached_property
    def classes(self) -> tuple[TissueClass, ...]:
        """Names and colours; class i has the label value i + 1."""
        _, made_by = open_store(self.store, "segmentation")
        return tuple(TissueClass.model_validate(entry) for entry in made_by.options["classes"])

    @cached_property
    def grid(self) -> TileGrid:
        """Where the map lies on the slide: ``grid.map_to_level0_px()`` takes its pixels to the slide's."""
        return open_store(self.store, "segmentation")[1].grid

    @property
    def levels(self) -> int:
        """How many levels class map and probabilities have; each is half as large as the one before."""
        return sum(str(level) in self._group for level in range(64))

    def mpp(self, level: int = 0) -> float:
        """Micrometres a pixel of a level."""
        return float(self.grid.mpp_map * 2**level)

    def class_map(self, level: int = 0) -> NDArray[np.uint8]:
        """Label values ``(y, x)``: 0 is no class, i + 1 is class i.

        Raises
        ------
        StoreError
            If the store is damaged, or has no such level.
        """
        labels: NDArray[np.uint8] = read_whole(self._array(f"{ome.LABELS}/{level}", level))
        return labels

    def probability(self, class_name: str, level: int = 0) -> NDArray[np.float32]:
        """The probability of a class, ``(y, x)`` in [0, 1].

        Raises
        ------
        ConfigError
            If there is no such class.
        StoreError
            As for :meth:`class_map`.
        """
        names = [each.name for each in self.classes]
        if class_name not in names:
            raise ConfigError(f"there is no class '{class_name}'", f"Choose one of {', '.join(names)}.")
        array = self._array(str(level), level)
        k = names.index(class_name)
        found = Shards(array).read(slice(k, k + 1), *(slice(0, n) for n in array.shape[1:]))[0]
        probability: NDArray[np.float32] = found.astype(np.float32) / (SCALE if found.dtype == np.uint8 else 1)
        return probability

    def polygons(self) -> list[Annotation]:
        """The objects: each has a ``geometry`` (shapely, in level-0 pixels as QuPath shows them) and a ``class_name``.

        Raises
        ------
        AnnotationError
            If the GeoJSON is missing or damaged.
        """
        from sampath_wsi.qupath import read_annotations

        return read_annotations(self.geojson)

    @property
    def _group(self) -> zarr.Group:
        return open_store(self.store, "segmentation")[0]

    def _array(self, name: str, level: int) -> zarr.Array[Any]:
        if not 0 <= level < self.levels:
            raise StoreError(f"{self.store}: there is no level {level}", f"Choose one from 0 to {self.levels - 1}.")
        return read_array(self._group, name)


def read_results(folder: str | Path) -> list[Segmentation]:
    """The finished slides of a run.

    Parameters
    ----------
    folder
        The folder of all results, or that of one slide.

    Raises
    ------
    ConfigError
        If there is none.
    """
    folder = Path(folder)
    summaries = sorted([*folder.glob("slides/*/summary.json"), *folder.glob("summary.json")])
    if not summaries:
        raise ConfigError(f"{folder}: there are no results", "Name the output folder of a run.")
    return [Segmentation(path.parent) for path in summaries]
