"""Scores of a model on a split of prepared data: each pixel of a field counts once, unlabelled pixels not at all.

What is written is described in :mod:`.score_files`; with ``maps`` also ``labels/FIELD.png`` (uint8,
label values) and ``pictures/FIELD.png`` (image, true and predicted outlines).
"""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from sampath_wsi import __version__
from sampath_wsi.errors import DataError
from sampath_wsi.files import write_json, written_aside
from sampath_wsi.machine.device import describe_machine
from sampath_wsi.metrics import ConfusionMatrix
from sampath_wsi.progress import Progress
from sampath_wsi.training.data.leakage import leakage_of
from sampath_wsi.training.data.prepared import DatasetInfo, PreparedData
from sampath_wsi.training.scoring.fields import Field, fields_of, read_field
from sampath_wsi.training.scoring.paper_metrics import rule_for
from sampath_wsi.training.scoring.pictures import side_by_side
from sampath_wsi.training.scoring.score_files import COUNTS_NAME, SCORES_NAME, FieldCounts, summary_of, write_counts

log = logging.getLogger(__name__)

Labeller = Callable[[Field, NDArray[np.uint8]], tuple[NDArray[np.uint8], float]]
"""Field and image ``(H, W, 3)`` to labels ``(H, W)`` and the seconds that the model took."""


@dataclass(frozen=True)
class ScoringSpec:
    """What is tested on, and what is written.

    Parameters
    ----------
    data, splits, split
        Folder of the prepared data, splits file or None, and which split.
    out
        The folder to write.
    device, threads
        See :func:`sampath_wsi.machine.device.leased_device`; threads of torch on the CPU, as many as it likes if None.
    maps
        Also write label maps and pictures.
    """

    data: Path
    split: str
    out: Path
    splits: Path | None = None
    device: str = "auto"
    threads: int | None = None
    maps: bool = False


@dataclass(frozen=True)
class Subject:
    """What is tested.

    Parameters
    ----------
    name, weights_sha256
        What it is called, and which weights it has.
    label
        How it labels a field.
    device
        Where it runs.
    options
        How it was used, for the record.
    prompted
        Whether it was shown where the truth is (vanilla SAM).
    """

    name: str
    weights_sha256: str
    label: Labeller
    device: torch.device
    options: dict[str, Any]
    prompted: bool = False


def run_test(
    subject: Subject, data: PreparedData, spec: ScoringSpec, progress: Progress | None = None
) -> dict[str, Any]:
    """Test on the fields of a split, and write what came of it.

    Returns
    -------
    What ``scores.json`` says.

    Raises
    ------
    DataError
        If the split is empty, not labelled at all, or cannot be read.
    """
    if spec.threads is not None:
        torch.set_num_threads(spec.threads)
    leakage = leakage_of(data)
    log.log(logging.WARNING if leakage.leaks else logging.INFO, "%s: %s", spec.data, leakage.summary)
    machine = describe_machine(subject.device, 1, spec.threads)
    log.info("test: %s (weights %s) on %s", subject.name, subject.weights_sha256[:12], machine)
    counts, seconds = _count(subject.label, data, spec, progress)
    class_names = [c.name for c in data.info.classes]
    scores = {
        "model": subject.name,
        "weights_sha256": subject.weights_sha256,
        "data": data.info.name,
        "split": spec.split,
        "splits_file": None if spec.splits is None else str(spec.splits),
        **summary_of(counts, class_names, rule_for(len(class_names), prompted=subject.prompted)),
        "seconds_per_image": seconds,
        "device": machine,
        "leakage": leakage.to_json(),
        "options": subject.options | {"threads": torch.get_num_threads()},
        "software": {
            "sampath_wsi": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("numpy", "torch", "timm", "segment-anything")},
        },
    }
    write_counts(spec.out / COUNTS_NAME, counts)
    write_json(spec.out / SCORES_NAME, scores)
    return scores


def _count(
    label: Labeller, data: PreparedData, spec: ScoringSpec, progress: Progress | None
) -> tuple[FieldCounts, dict[str, float]]:
    """Predict and count field by field; the confusion matrices, and the mean seconds a field."""
    fields = fields_of(data.split(spec.split))
    matrices, seconds = [], []
    for done, field in enumerate(fields, start=1):
        begun = time.perf_counter()
        image, truth = read_field(data, field)
        predicted, model_seconds = label(field, image)
        seconds.append((time.perf_counter() - begun, model_seconds))
        matrices.append(ConfusionMatrix.of(truth, predicted, len(data.info.classes)).counts)
        if spec.maps:
            _write_maps(spec.out, field, image, truth, predicted, data.info)
        if progress is not None:
            progress(done, len(fields), "fields")
    counts = np.stack(matrices)
    if not counts.any():
        raise DataError(f"{spec.data}: no pixel of the split {spec.split!r} is labelled", "Check its label maps.")
    # The first one also pays for what is made ready once.
    mean, model = np.mean(seconds[1:] or seconds, axis=0).round(4).tolist()
    names, groups, splits = zip(*((f.name, f.group, f.split) for f in fields), strict=True)
    return FieldCounts(names, groups, splits, counts), {"mean": mean, "model": model}


def _write_maps(
    out: Path,
    field: Field,
    image: NDArray[np.uint8],
    truth: NDArray[np.uint8],
    predicted: NDArray[np.uint8],
    info: DatasetInfo,
) -> None:
    name = f"{field.name.replace('/', '_')}.png"
    for folder, picture in (
        ("labels", Image.fromarray(predicted)),
        ("pictures", side_by_side(image, truth, predicted, info.classes)),
    ):
        with written_aside(out / folder / name) as aside:
            picture.save(aside)
