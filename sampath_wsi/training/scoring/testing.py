"""Tests of a model bundle, and of vanilla SAM prompted with dots, on a split of prepared data.

Each pixel of a field counts once, unlabelled pixels not at all. :mod:`.scores` describes what is written; with ``maps``
also ``labels/FIELD.png`` (uint8, label values) and ``pictures/FIELD.png`` (image, true and predicted outlines).
"""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from sampath_wsi import __version__
from sampath_wsi.classes import TissueClass, colour_table
from sampath_wsi.errors import DataError
from sampath_wsi.files import sha256, write_json, written_aside
from sampath_wsi.machine.device import choose_precision, describe_machine, leased_device
from sampath_wsi.metrics import LEVEL, RESAMPLES, ConfusionMatrix, Counts
from sampath_wsi.model.bundle import load_bundle
from sampath_wsi.model.card import CARD_NAME, ModelCard
from sampath_wsi.model.vanilla_sam import dots_of_instances, load_vanilla_sam, segment_by_dots
from sampath_wsi.model.zoo import find_encoder, resolve_model
from sampath_wsi.options import ModelScoringOptions, PromptScoringOptions, ScoringOptions
from sampath_wsi.progress import Progress
from sampath_wsi.stages.infer.predictor import Predictor, default_batch
from sampath_wsi.stages.report import edges
from sampath_wsi.stages.vectorize.regions import without_small_regions
from sampath_wsi.training.data.leakage import leakage_of
from sampath_wsi.training.data.prepared import PreparedData, read_prepared
from sampath_wsi.training.scoring.fields import Field, FieldPredictor, fields_of, read_field, read_field_instances
from sampath_wsi.training.scoring.paper import as_in_the_paper
from sampath_wsi.training.scoring.scores import (
    COUNTS_NAME,
    SCORES_NAME,
    SEED,
    Scores,
    Seconds,
    Usage,
    scores_of,
    write_counts,
)

log = logging.getLogger(__name__)

MPP_TOLERANCE = 0.01
_PANEL_PX = 640
_GAP_PX = 8

Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class _Model:
    """A model that is ready to be tested."""

    name: str
    weights_sha256: str
    label: Callable[[Field, NDArray[np.uint8]], tuple[Labels, float]]
    """Field and image ``(H, W, 3)`` to labels ``(H, W)`` and the seconds that the model took."""
    device: torch.device
    used: Usage
    """Facts of the model's use, for the record."""
    prompted: bool = False
    """Whether the model is prompted with points from the truth (vanilla SAM)."""


def score_model(
    model: str | Path,
    data: Path,
    out: Path,
    options: ModelScoringOptions | Mapping[str, object] | None = None,
    *,
    progress: Progress | None = None,
) -> Scores:
    """Test a model bundle.

    Parameters
    ----------
    model
        Its name or path.
    data, out
        The folder of the prepared data, and the one to write.

    Raises
    ------
    ModelError
        If the model cannot be used.
    DataError
        If the data cannot be used, or are not of the model's classes and resolution.
    ConfigError
        If an option makes no sense.
    """
    given = ModelScoringOptions.of(options, "test")
    card = ModelCard.read(resolve_model(model) / CARD_NAME)
    prepared = read_prepared(data, given.splits)
    _check_fit(card, prepared)
    with leased_device(given.device) as device:
        bundle, precision = load_bundle(model), choose_precision(given.precision, device)
        batch = given.batch or default_batch(device, card)
        predictor = Predictor(bundle, device, precision)
        predict = FieldPredictor(predictor, len(card.classes), card.tile_px, card.output_stride, batch, given.tta)

        def label(_: Field, image: NDArray[np.uint8]) -> tuple[Labels, float]:
            before = predict.model_seconds
            labels = without_small_regions(predict(image), given.min_area / prepared.info.mpp**2)
            return labels, predict.model_seconds - before

        used: Usage = {"tta": given.tta, "min_area_um2": given.min_area, "precision": precision, "batch": batch}
        used["tile_px"] = card.tile_px
        ready = _Model(card.name, bundle.card.weights_sha256 or "", label, device, used)
        return _run(ready, prepared, out, given, progress)


def score_prompts(
    sam: str | Path,
    data: Path,
    out: Path,
    options: PromptScoringOptions | Mapping[str, object] | None = None,
    *,
    progress: Progress | None = None,
) -> Scores:
    """Test vanilla SAM with one dot in each instance, on data of two classes of which the second has instances.

    Parameters
    ----------
    sam
        Path or name of its checkpoint.
    data, out
        The folder of the prepared data, and the one to write.

    Raises
    ------
    ModelError
        If the checkpoint cannot be had or is not a SAM's.
    DataError
        If the data cannot be used, or have other classes than background and gland, or no instances.
    """
    given = PromptScoringOptions.of(options, "test-prompts")
    prepared = read_prepared(data, given.splits)
    _check_has_instances(prepared, given.split)
    path = find_encoder(sam)
    with leased_device(given.device) as device:
        model, largest = load_vanilla_sam(path).to(device), given.drop_larger_than

        def label(field: Field, image: NDArray[np.uint8]) -> tuple[Labels, float]:
            dots = dots_of_instances(read_field_instances(prepared, field))
            begun = time.perf_counter()
            labels = segment_by_dots(model, image, dots, drop_larger_than=largest)
            return labels, time.perf_counter() - begun

        used: Usage = {"prompts": "one dot a gland", "drop_larger_than": largest}
        vanilla = _Model(f"vanilla SAM ({path.stem})", sha256(path), label, device, used, prompted=True)
        return _run(vanilla, prepared, out, given, progress)


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


def _run(model: _Model, data: PreparedData, out: Path, options: ScoringOptions, progress: Progress | None) -> Scores:
    """Test on the fields of a split, and write scores and counts; DataError if no pixel of the split is labelled."""
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    leakage = leakage_of(data)
    log.log(logging.WARNING if leakage.leaks else logging.INFO, "%s: %s", data.folder, leakage.summary)
    machine = describe_machine(model.device, 1, options.threads)
    log.info("test: %s (weights %s) on %s", model.name, model.weights_sha256[:12], machine)
    fields = fields_of(data.split(options.split))
    counts, seconds = _count(model, fields, data, out if options.maps else None, progress)
    total, groups = ConfusionMatrix(counts.sum(0)), [field.group for field in fields]
    class_names = [c.name for c in data.info.classes]
    scores = Scores(
        model=model.name,
        weights_sha256=model.weights_sha256,
        data=data.info.name,
        split=options.split,
        splits_file=None if options.splits is None else str(options.splits),
        fields=len(fields),
        groups=len(set(groups)),
        classes=class_names,
        confusion=total.counts.tolist(),
        scores=scores_of(counts, groups, class_names),
        bootstrap={"level": LEVEL, "resamples": RESAMPLES, "seed": SEED},
        as_in_the_paper=as_in_the_paper(total, prompted=model.prompted),
        seconds_per_image=seconds,
        device=machine,
        leakage=leakage.to_json(),
        options=model.used | {"threads": torch.get_num_threads()},
        software={
            "sampath_wsi": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("numpy", "torch", "timm", "segment-anything")},
        },
    )
    write_counts(out / COUNTS_NAME, fields, counts)
    write_json(out / SCORES_NAME, scores.model_dump())
    return scores


def _count(
    model: _Model, fields: Sequence[Field], data: PreparedData, maps: Path | None, progress: Progress | None
) -> tuple[Counts, Seconds]:
    """Predict field by field, draw into the folder ``maps``, and count ``(n_fields, n_classes, n_classes + 1)``."""
    matrices, seconds = [], []
    for done, field in enumerate(fields, start=1):
        begun = time.perf_counter()
        image, truth = read_field(data, field)
        predicted, model_seconds = model.label(field, image)
        seconds.append((time.perf_counter() - begun, model_seconds))
        matrices.append(ConfusionMatrix.of(truth, predicted, len(data.info.classes)).counts)
        if maps is not None:
            picture = _side_by_side(image, truth, predicted, data.info.classes)
            for folder, shown in (("labels", Image.fromarray(predicted)), ("pictures", picture)):
                with written_aside(maps / folder / f"{field.name.replace('/', '_')}.png") as aside:
                    shown.save(aside)
        if progress is not None:
            progress(done, len(fields), "fields")
    counts = np.stack(matrices)
    if not counts.any():
        raise DataError(
            f"{data.folder}: no pixel of the split {fields[0].split!r} is labelled", "Check its label maps."
        )
    # The first one also pays for one-time preparations.
    mean, alone = np.mean(seconds[1:] or seconds, axis=0).round(4).tolist()
    return counts, Seconds(mean=mean, model=alone)


def _side_by_side(
    image: NDArray[np.uint8], truth: Labels, predicted: Labels, classes: tuple[TissueClass, ...]
) -> Image.Image:
    """Draw image ``(H, W, 3)``, true and predicted labels ``(H, W)``; unlabelled pixels are faded in the truth."""
    height, width = truth.shape
    scale = min(1.0, _PANEL_PX / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))
    canvas = Image.new("RGB", (3 * size[0] + 2 * _GAP_PX, size[1]), "white")
    canvas.paste(Image.fromarray(small), (0, 0))
    for position, labels in enumerate((truth, predicted), start=1):
        shrunk = np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST))
        panel = np.where((shrunk > 0)[..., None], small, small // 2 + 128).astype(np.uint8)
        # Three pixels wide; where two outlines meet, that of the later class is on top (a gland's on its background's).
        lines = ndimage.maximum_filter(np.where(edges(shrunk), shrunk, 0), 3)
        panel[lines > 0] = colour_table(classes)[lines[lines > 0]]
        canvas.paste(Image.fromarray(panel), (position * (size[0] + _GAP_PX), 0))
    return canvas
