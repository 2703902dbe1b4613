"""Scores of a segmentation against a true class map of the same slide: every pixel of the truth counts once."""

from __future__ import annotations

from pathlib import Path
from typing import NotRequired, TypedDict

import numpy as np
import tifffile
from numpy.typing import NDArray

from sampath_wsi.errors import AnnotationError
from sampath_wsi.geometry import TileGrid
from sampath_wsi.metrics import METRICS, ConfusionMatrix
from sampath_wsi.stores.pyramid import LABELS
from sampath_wsi.stores.shards import read_whole
from sampath_wsi.stores.store import open_store, read_array

_ROWS_AT_ONCE = 512


class Evaluation(TypedDict):
    """Scores of a slide, each by metric (:data:`sampath_wsi.metrics.METRICS`); as JSON ``evaluation.json``."""

    truth: str
    classes: dict[str, dict[str, float]]
    macro: dict[str, float]
    """Means over the classes that occur in the truth."""
    no_tissue: dict[str, float]
    labelled: NotRequired[float]
    """With ``ignore``: the share of the truth that was counted."""


def evaluate(segmentation_path: Path, truth_path: Path, *, ignore: int | None = None) -> Evaluation:
    """Score a segmentation against the truth.

    Parameters
    ----------
    segmentation_path
        A finished segmentation store.
    truth_path
        A TIFF over the whole slide, of any size with the slide's proportions: label values in the order of the
        model's classes. 0 means that there is no tissue, and a class found there is a false positive.
    ignore
        A value of the truth that marks pixels nobody labelled, such as 255 on slides that are annotated in part: they
        are left out.

    Raises
    ------
    StoreError
        If the segmentation cannot be used.
    AnnotationError
        If the truth cannot be read or does not fit.
    """
    group, made_by = open_store(segmentation_path, "segmentation")
    names = ["no tissue", *(entry.name for entry in made_by.classes)]
    truth = _read_truth(truth_path, made_by.grid, len(names) - 1, ignore)
    label = read_whole(read_array(group, f"{LABELS}/0"))
    columns, inside_x = _map_positions(truth.shape[1], made_by.grid, axis=0)
    rows, inside_y = _map_positions(truth.shape[0], made_by.grid, axis=1)
    # "No tissue" takes part as a class of its own, so that a class found on glass counts against that class.
    matrix = ConfusionMatrix.empty(len(names))
    for first in range(0, truth.shape[0], _ROWS_AT_ONCE):
        part = slice(first, first + _ROWS_AT_ONCE)
        predicted = label[rows[part]][:, columns] * (inside_y[part, None] & inside_x)
        actual = np.where(truth[part] == ignore, 0, truth[part].astype(np.int64) + 1)
        matrix += ConfusionMatrix.of(actual, predicted + 1, len(names))
    values = {metric: np.nan_to_num(matrix.per_class(metric)) for metric in METRICS}
    classes = {name: {metric: float(values[metric][k]) for metric in METRICS} for k, name in enumerate(names)}
    occurring = np.flatnonzero(matrix.present[1:]) + 1
    macro = {metric: float(values[metric][occurring].mean()) if len(occurring) else 0.0 for metric in METRICS}
    no_tissue = classes.pop(names[0])
    result: Evaluation = {"truth": str(truth_path), "classes": classes, "macro": macro, "no_tissue": no_tissue}
    if ignore is not None:
        result["labelled"] = float(matrix.counts.sum() / truth.size)
    return result


def _read_truth(path: Path, grid: TileGrid, classes: int, ignore: int | None) -> NDArray[np.uint8]:
    """Read a true class map ``(H, W)``, and check that it fits the slide and the model's number of classes."""
    if not path.is_file():
        raise AnnotationError(f"{path}: there is no such true class map", "Check the path.")
    try:
        truth = np.asarray(tifffile.imread(path))
    except Exception as error:  # a TIFF that is damaged fails in as many ways as it can be damaged
        raise AnnotationError(
            f"{path}: the true class map cannot be read: {error}", "Give a TIFF of labels."
        ) from error
    ratio = grid.slide_height_level0_px / grid.slide_width_level0_px
    ratio *= truth.shape[-1] / truth.shape[0] if truth.ndim and truth.size else 0
    if truth.ndim != 2 or truth.dtype != np.uint8 or not 0.99 < ratio < 1.01:
        raise AnnotationError(
            f"{path}: a {truth.dtype} image of shape {truth.shape} is not a class map of a slide of "
            f"{grid.slide_width_level0_px} x {grid.slide_height_level0_px} px",
            "Give one uint8 label a pixel over the whole slide.",
        )
    present = [label for label in np.unique(truth).tolist() if label != ignore]
    if not present:
        raise AnnotationError(f"{path}: every pixel has the ignored value {ignore}", "Check the truth and --ignore.")
    if present[-1] > classes:
        raise AnnotationError(
            f"{path}: label {present[-1]} occurs, but the model has {classes} classes",
            "Use the model's class order, and --ignore for the value of pixels that nobody labelled.",
        )
    return truth


def _map_positions(count: int, grid: TileGrid, axis: int) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Find the map pixel under the centre of each truth pixel along an axis (0 = x), and whether it is on the map."""
    length_level0_px = (grid.slide_width_level0_px, grid.slide_height_level0_px)[axis]
    scale, offset = grid.map_to_level0_px()[axis], grid.map_to_level0_px()[axis + 2]
    centres_level0_px = (np.arange(count) + 0.5) * length_level0_px / count
    position = np.floor((centres_level0_px - offset) / scale).astype(np.intp)
    size = grid.map_size_map_px[axis]
    return np.clip(position, 0, size - 1), (position >= 0) & (position < size)
