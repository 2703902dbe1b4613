"""A model made ready to run on a device at a precision. Weights are loaded when needed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sampath_wsi.classes import TissueClass
from sampath_wsi.errors import ModelError
from sampath_wsi.files import sha256
from sampath_wsi.model.card import CARD_NAME, WEIGHTS_NAME, ModelCard, ModelSpec
from sampath_wsi.model.zoo import resolve_model
from sampath_wsi.options import InferOptions
from sampath_wsi.probability import to_bytes
from sampath_wsi.stages.infer.stage import Batch, PredictorLike, ReadyModel
from sampath_wsi.stores.provenance import Computed

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class CustomModel:
    """A predictor of your own in place of SAM-Path.

    Parameters
    ----------
    name
        Goes into every result.
    classes
        In the order of the predictor's channels.
    mpp
        The resolution of the tiles that it wants, um/px.
    tile_px, overlap_px
        Their size and overlap.
    predict
        Called with tiles ``(tile, y, x, 3)`` uint8 RGB; gives class probabilities
        ``(tile, class, y / output_stride, x / output_stride)``, floats that sum to 1 over the classes.
    output_stride
        Pixels of a tile in one pixel of the prediction, in each direction.
    version
        Change it when the predictor changes: results that another version made are made anew.
    batch
        Tiles a call.
    """

    name: str
    classes: Sequence[TissueClass]
    mpp: float
    tile_px: int
    overlap_px: int
    predict: Callable[[NDArray[np.uint8]], NDArray[np.floating]]
    output_stride: int = 4
    version: str = "1"
    batch: int = 8

    def __call__(self, rgb: NDArray[np.uint8]) -> Batch:
        """Predict a batch for stage 2.

        Raises
        ------
        ModelError
            If the predictor gives something of another shape.
        """
        probability = np.asarray(self.predict(rgb))
        size = self.tile_px // self.output_stride
        expected = (len(rgb), len(self.classes), size, size)
        if probability.shape != expected:
            raise ModelError(
                f"the predictor '{self.name}' gives an array {probability.shape} where {expected} is wanted",
                "Give probabilities (tile, class, y, x) at 1/output_stride of the tile's resolution.",
            )
        # It estimates no quality of its own.
        return to_bytes(probability, 1), np.ones(expected[:2], np.float32)


def read_spec(model: str | Path | CustomModel) -> ModelSpec:
    """Return a model's identity and the tiles that it expects; for one in the zoo or at a path, from its card.

    Raises
    ------
    ModelError
        If there is no such model.
    """
    card: ModelCard | CustomModel
    settings = ""
    if isinstance(model, CustomModel):
        card, identity = model, hashlib.sha256(f"{model.name} {model.version}".encode()).hexdigest()
    else:
        path = resolve_model(model)
        card = found = ModelCard.read(path / CARD_NAME)
        identity, settings = found.weights_sha256 or sha256(path / WEIGHTS_NAME), found.settings_sha256
    return ModelSpec(
        name=card.name,
        weights_sha256=identity,
        classes=tuple(card.classes),
        mpp=card.mpp,
        tile_px=card.tile_px,
        output_stride=card.output_stride,
        overlap_px=card.overlap_px,
        settings_sha256=settings,
    )


@contextmanager
def ready_model(
    model: str | Path | CustomModel,
    options: InferOptions | None = None,
    *,
    threads: int | None = None,
    hold: bool = True,
) -> Iterator[ReadyModel]:
    """Yield a model on a device, held until the block ends (:func:`sampath_wsi.machine.device.leased_device`).

    Parameters
    ----------
    threads
        CPU threads of the model; None is all.
    hold
        False does not wait for a GPU that other jobs use: to look only.

    Raises
    ------
    ModelError, ConfigError
        If there is no such model or device.
    """
    options = options or InferOptions()
    spec = read_spec(model)
    if isinstance(model, CustomModel):
        predictor, computed = model, Computed(precision="own", batch=options.batch or model.batch)
        yield ReadyModel(spec, "own predictor", "own", computed, lambda precision: predictor)
        return
    from sampath_wsi.machine.device import choose_precision, first_device, leased_device
    from sampath_wsi.stages.infer.predictor import default_batch

    path = resolve_model(model)
    with leased_device(options.device) if hold else nullcontext(first_device(options.device)) as chosen:

        def load(precision: str) -> PredictorLike:
            import torch

            from sampath_wsi.model.bundle import load_bundle
            from sampath_wsi.stages.infer.predictor import Predictor

            if threads is not None:
                torch.set_num_threads(threads)
            # A store that a larger device began has larger batches than this one can hold.
            return Predictor(load_bundle(path), chosen, choose_precision(precision, chosen), computed.batch)

        computed = Computed(
            precision=choose_precision(options.precision, chosen),
            batch=options.batch or default_batch(chosen, ModelCard.read(path / CARD_NAME)),
        )
        yield ReadyModel(spec, _name(chosen), options.precision, computed, load)


def _name(device: torch.device) -> str:
    import torch

    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return str(device)
