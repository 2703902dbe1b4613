"""Paths of the files and stores of a run, named once, and the results of a slide read back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sampath_wsi.errors import ConfigError, StoreError

if TYPE_CHECKING:
    import numpy as np
    import zarr
    from numpy.typing import NDArray

    from sampath_wsi.classes import TissueClass
    from sampath_wsi.geometry import TileGrid
    from sampath_wsi.qupath import Annotation
    from sampath_wsi.stores.provenance import Provenance

# The workflow imports this module each time that it is parsed: libraries that read results are imported on use.


@dataclass(frozen=True)
class RunResults:
    """The results of a run, in one folder."""

    folder: Path

    @property
    def page(self) -> Path:
        """Path of the cohort's page (HTML)."""
        return self.folder / "cohort.html"

    @property
    def table(self) -> Path:
        """Path of the cohort's table."""
        return self.folder / "cohort.tsv"

    @property
    def logs(self) -> Path:
        """Folder of the logs: a folder for each slide with a file for each stage."""
        return self.folder / "logs"

    @property
    def benchmarks(self) -> Path:
        """Folder of the costs: a folder for each slide with a file for each stage."""
        return self.folder / "benchmarks"

    def slide(self, slide_id: str) -> SlideResults:
        """Return the results of a slide of the sheet."""
        return SlideResults(self.folder / "slides" / slide_id)

    def slides(self) -> list[SlideResults]:
        """Return all slides that have any result."""
        return [SlideResults(path) for path in sorted(self.folder.glob("slides/*")) if path.is_dir()]


@dataclass(frozen=True)
class SlideResults:
    """The results of one slide, in a folder as the workflow leaves it (``results/slides/NAME``).

    Nothing is read before it is asked for.
    """

    folder: Path

    @property
    def tiles(self) -> Path:
        """Store of stage 1: the tiles, which exist until stage 2 is finished."""
        return self.folder / "tiles.zarr"

    @property
    def probabilities(self) -> Path:
        """Store of stage 2: the model's output, tile by tile."""
        return self.folder / "probabilities.zarr"

    def part_marker(self, number: str, of: str) -> Path:
        """Return the path of the marker by which the workflow knows that a part of stage 2 is computed."""
        return self.probabilities.with_name(f"{self.probabilities.name}.parts") / f"{number}-of-{of}.done"

    @property
    def segmentation(self) -> Path:
        """Store of stage 3: class probabilities and class map, OME-Zarr 0.5."""
        return self.folder / "segmentation.ome.zarr"

    @property
    def geojson(self) -> Path:
        """File of stage 4: the objects, for QuPath."""
        return self.folder / "segmentation.geojson.gz"

    @property
    def tile_objects(self) -> Path:
        """File of the tiles with their mean probabilities, for QuPath's measurement maps."""
        return self.folder / "tiles.geojson.gz"

    @property
    def overlay(self) -> Path:
        """File of the overlay picture."""
        return self.folder / "overlay.png"

    @property
    def thumbnail(self) -> Path:
        """File of a small picture of the slide."""
        return self.folder / "thumbnail.jpg"

    @property
    def thumbnail_classes(self) -> Path:
        """File of the classes of the thumbnail, to be laid over it."""
        return self.folder / "thumbnail-classes.png"

    @property
    def summary_file(self) -> Path:
        """File of the slide's summary; it exists when the slide is finished."""
        return self.folder / "summary.json"

    @property
    def evaluation(self) -> Path:
        """File of the scores against the truth, if that is known."""
        return self.folder / "evaluation.json"

    @property
    def records(self) -> Path:
        """Folder of the stages' records."""
        return self.folder / "run"

    def record(self, stage: str) -> Path:
        """Return the path of a stage's record."""
        return self.records / f"{stage}.json"

    def image(self, name: str) -> Path:
        """Return the path of a picture to open beside the slide: ``classes``, ``probability`` or ``entropy``."""
        return self.folder / f"{name}.ome.tif"

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Areas, model, warnings and course, as in ``summary.json``.

        Raises
        ------
        StoreError
            If it is missing or damaged.
        """
        path = self.summary_file
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise StoreError(f"{path}: cannot be read ({error})", "Segment the slide again.") from None
        assert isinstance(found, dict)
        return found

    @property
    def class_areas_mm2(self) -> dict[str, float]:
        """Area by class name, in square millimetres."""
        return {name: entry["area_mm2"] for name, entry in self.summary["classes"].items()}

    @cached_property
    def classes(self) -> tuple[TissueClass, ...]:
        """Names and colours; class i has the label value i + 1."""
        return self._opened[1].classes

    @cached_property
    def grid(self) -> TileGrid:
        """The grid, which places the map on the slide: ``grid.map_to_level0_px()`` takes its pixels to the slide's."""
        return self._opened[1].grid

    @property
    def levels(self) -> int:
        """Number of levels of class map and probabilities; each is half as large as the one before."""
        return sum(str(level) in self._opened[0] for level in range(64))

    def mpp(self, level: int = 0) -> float:
        """Return micrometres a pixel of a level."""
        return float(self.grid.mpp_map * 2**level)

    def class_map(self, level: int = 0) -> NDArray[np.uint8]:
        """Return label values ``(y, x)``: 0 is no class, i + 1 is class i.

        Raises
        ------
        StoreError
            If the store is damaged, or has no such level.
        """
        from sampath_wsi.stores.pyramid import LABELS
        from sampath_wsi.stores.shards import read_whole

        labels: NDArray[np.uint8] = read_whole(self._array(f"{LABELS}/{level}", level))
        return labels

    def probability(self, class_name: str, level: int = 0) -> NDArray[np.float32]:
        """Return the probability of a class, ``(y, x)`` in [0, 1].

        Raises
        ------
        ConfigError
            If there is no such class.
        StoreError
            As for :meth:`class_map`.
        """
        from sampath_wsi.classes import class_index
        from sampath_wsi.probability import SCALE
        from sampath_wsi.stores.shards import Shards

        k = class_index(self.classes, class_name)
        array = self._array(str(level), level)
        found = Shards(array).read(slice(k, k + 1), *(slice(0, n) for n in array.shape[1:]))[0]
        probability: NDArray[np.float32] = found.astype("float32") / (SCALE if found.dtype == "uint8" else 1)
        return probability

    def polygons(self) -> list[Annotation]:
        """Return the objects, with ``geometry`` (shapely, in level-0 pixels as QuPath shows them) and ``class_name``.

        Raises
        ------
        AnnotationError
            If the GeoJSON is missing or damaged.
        """
        from sampath_wsi.qupath import read_annotations

        return read_annotations(self.geojson)

    @property
    def _opened(self) -> tuple[zarr.Group, Provenance]:
        from sampath_wsi.stores.store import open_store

        return open_store(self.segmentation, "segmentation")

    def _array(self, name: str, level: int) -> zarr.Array[Any]:
        from sampath_wsi.stores.store import read_array

        if not 0 <= level < self.levels:
            raise StoreError(
                f"{self.segmentation}: there is no level {level}", f"Choose one from 0 to {self.levels - 1}."
            )
        return read_array(self._opened[0], name)


def read_results(folder: str | Path) -> list[SlideResults]:
    """Return the finished slides of a run.

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
    there = [each for each in (*RunResults(folder).slides(), SlideResults(folder)) if each.summary_file.exists()]
    if not there:
        raise ConfigError(f"{folder}: there are no results", "Name the output folder of a run.")
    return there
