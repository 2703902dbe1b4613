"""What can be tested: a model bundle, and vanilla SAM prompted with dots."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sampath_wsi.errors import DataError
from sampath_wsi.files import sha256
from sampath_wsi.machine.device import choose_precision, leased_device
from sampath_wsi.model.bundle import load_bundle
from sampath_wsi.model.card import CARD_NAME, ModelCard
from sampath_wsi.model.prompted import dots_of_instances, segment_by_dots
from sampath_wsi.model.registry import find_encoder
from sampath_wsi.model.vanilla_sam import load_vanilla_sam
from sampath_wsi.model.zoo import resolve_model
from sampath_wsi.progress import Progress
from sampath_wsi.stages.infer.predictor import Predictor, default_batch
from sampath_wsi.stages.vectorize.label_maps import without_small_regions
from sampath_wsi.training.data.prepared import PreparedData, read_prepared
from sampath_wsi.training.scoring.field_prediction import FieldPredictor
from sampath_wsi.training.scoring.fields import Field, read_field_instances
from sampath_wsi.training.scoring.testing import Labeller, ScoringSpec, Subject, run_test

MPP_TOLERANCE = 0.01


def score_model(
    model: str | Path,
    spec: ScoringSpec,
    *,
    flips: int = 1,
    min_area_um2: float = 0.0,
    precision: str = "fp32",
    batch: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Test a model bundle.

    Parameters
    ----------
    model
        Its name or path.
    flips
        Symmetric versions of each window that are averaged: 1, 4 or 8.
    min_area_um2
        Smaller regions of the label map are merged into their surroundings, as where slides are vectorized.
    precision
        Of the encoders. In fp32 the scores do not depend on the device.
    batch
        Windows at once; by device if None.

    Returns
    -------
    What ``scores.json`` says.

    Raises
    ------
    ModelError
        If the model cannot be used.
    DataError
        If the data cannot be used, or are not of the model's classes and resolution.
    ConfigError
        If an option makes no sense.
    """
    card = ModelCard.read(resolve_model(model) / CARD_NAME)
    data = read_prepared(spec.data, spec.splits)
    _check_fit(card, data)
    with leased_device(spec.device) as device:
        bundle, how = load_bundle(model), choose_precision(precision, device)
        at_once = batch or default_batch(device, card)
        predictor = Predictor(bundle, device, how)
        predict = FieldPredictor(predictor, len(card.classes), card.tile_px, card.output_stride, at_once, flips)
        options = {
            "flips": flips,
            "min_area_um2": min_area_um2,
            "precision": how,
            "batch": at_once,
            "tile_px": card.tile_px,
        }
        label = _labeller(predict, min_area_um2 / data.info.mpp**2)
        subject = Subject(card.name, bundle.weights_sha256, label, device, options)
        return run_test(subject, data, spec, progress)


def _labeller(predict: FieldPredictor, min_area_px: float) -> Labeller:
    """Labels from a model, without regions that are smaller."""

    def label(_: Field, image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], float]:
        before = predict.model_seconds
        labels = without_small_regions(predict(image), min_area_px)
        return labels, predict.model_seconds - before

    return label


def score_dots(
    sam: str | Path, spec: ScoringSpec, *, drop_larger_than: float | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Test vanilla SAM with one dot in each instance, on data of two classes of which the second has instances.

    Parameters
    ----------
    sam
        Path or name of its checkpoint.
    drop_larger_than
        See :func:`sampath_wsi.model.prompted.segment_by_dots`.

    Returns
    -------
    What ``scores.json`` says.

    Raises
    ------
    ModelError
        If the checkpoint cannot be had or is not a SAM's.
    DataError
        If the data cannot be used, or have other classes than background and gland, or no instances.
    """
    data = read_prepared(spec.data, spec.splits)
    _check_has_instances(data, spec.split)
    path = find_encoder(sam)
    with leased_device(spec.device) as device:
        model = load_vanilla_sam(path).to(device)

        def label(field: Field, image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], float]:
            dots = dots_of_instances(read_field_instances(data, field))
            begun = time.perf_counter()
            labels = segment_by_dots(model, image, dots, drop_larger_than=drop_larger_than)
            return labels, time.perf_counter() - begun

        options = {"prompts": "one dot a gland", "drop_larger_than": drop_larger_than}
        subject = Subject(f"vanilla SAM ({path.stem})", sha256(path), label, device, options, prompted=True)
        return run_test(subject, data, spec, progress)


def _check_fit(card: ModelCard, data: PreparedData) -> None:
    names, wanted = [c.name for c in data.info.classes], [c.name for c in card.classes]
    if names != wanted:
        raise DataError(
            f"{data.folder} has the classes {', '.join(names)}, the model {card.name} {', '.join(wanted)}",
            "Prepare the data with the model's classes, in its order.",
        )
    if abs(data.info.mpp - card.mpp) > MPP_TOLERANCE * card.mpp:
        raise DataError(
            f"{data.folder} has {data.info.mpp} um/px, the model {card.name} wants {card.mpp}",
            "Prepare the data at the model's resolution.",
        )


def _check_has_instances(data: PreparedData, split: str) -> None:
    names = [c.name for c in data.info.classes]
    if len(names) != 2:
        raise DataError(
            f"{data.folder} has {len(names)} classes ({', '.join(names)}), dots tell a gland from the background alone",
            "Test vanilla SAM on data of two classes with instances, such as CRAG or GlaS.",
        )
    if without := [s.sample for s in data.split(split) if not s.instances]:
        raise DataError(
            f"{data.folder}: {len(without)} samples of the split {split!r} have no instances, such as {without[0]}",
            "Prepare the data with instances.",
        )
