"""A model made ready to run: which one, on which device, at which precision. Weights are loaded when needed."""

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
from sampath_wsi.model.card import CARD_NAME, WEIGHTS_NAME, ModelCard
from sampath_wsi.model.zoo import resolve_model
from sampath_wsi.probability import to_bytes
from sampath_wsi.stages.infer.stage import Batch, ModelSpec, PredictorLike

if TYPE_CHECKING:
    import torch

    from sampath_wsi.stages.tile import TileOptions
    from sampath_wsi.tissue.mask import TissueOptions


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
        """What stage 2 calls.

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


@dataclass(frozen=True)
class ReadyModel:
    """A model and the device that it will run on.

    Attributes
    ----------
    frame
        What it expects of tiles, and who it is.
    overlap_px
        The overlap of tiles that it was made for.
    device, precision, batch
        As stage 2 uses and records them.
    load
        Loads the weights; called once, and only if there is something to compute.
    """

    frame: ModelSpec
    overlap_px: int
    device: str
    precision: str
    batch: int
    load: Callable[[], PredictorLike]


def model_spec(path: Path, card: ModelCard) -> ModelSpec:
    """What a model bundle expects of tiles, and who it is."""
    return ModelSpec(
        name=card.name,
        weights_sha256=card.weights_sha256 or sha256(path / WEIGHTS_NAME),
        classes=tuple(entry.model_dump(mode="json") for entry in card.classes),
        mpp=card.mpp,
        tile_px=card.tile_px,
        output_stride=card.output_stride,
    )


def tile_options(
    model: ModelCard | CustomModel,
    *,
    overlap_px: int | None,
    min_tissue: float = 0.0,
    tissue: TissueOptions | None = None,
) -> TileOptions:
    """How a slide is tiled for a model; without ``overlap_px`` with the model's own overlap."""
    # Here, since stage 2 imports this module and has no use for what these load.
    from sampath_wsi.stages.tile import TileOptions
    from sampath_wsi.tissue.mask import TissueOptions

    return TileOptions(
        mpp_model=model.mpp,
        tile_model_px=model.tile_px,
        overlap_model_px=model.overlap_px if overlap_px is None else overlap_px,
        output_stride=model.output_stride,
        min_tissue=min_tissue,
        tissue=tissue or TissueOptions(),
    )


def read_card(model: str | Path | CustomModel) -> ModelCard | CustomModel:
    """The card of a model in the zoo or at a path; an own model is its own card.

    Raises
    ------
    ModelError
        If there is no such model.
    """
    return model if isinstance(model, CustomModel) else ModelCard.read(resolve_model(model) / CARD_NAME)


@contextmanager
def ready_model(
    model: str | Path | CustomModel,
    *,
    device: str = "auto",
    precision: str = "auto",
    batch: int | None = None,
    threads: int | None = None,
    hold: bool = True,
) -> Iterator[ReadyModel]:
    """A model on a device, which is held until the block ends; see :func:`sampath_wsi.machine.device.leased_device`.

    Parameters
    ----------
    hold
        False does not wait for a GPU that other jobs use: to look only.

    Raises
    ------
    ModelError, ConfigError
        If there is no such model or device.
    """
    if isinstance(model, CustomModel):
        yield _own(model, batch)
        return
    from sampath_wsi.machine.device import choose_precision, first_device, leased_device
    from sampath_wsi.stages.infer.predictor import default_batch

    path = resolve_model(model)
    card = ModelCard.read(path / CARD_NAME)
    with leased_device(device) if hold else nullcontext(first_device(device)) as chosen:
        how = choose_precision(precision, chosen)

        def load() -> PredictorLike:
            import torch

            from sampath_wsi.model.bundle import load_bundle
            from sampath_wsi.stages.infer.predictor import Predictor

            if threads is not None:
                torch.set_num_threads(threads)
            return Predictor(load_bundle(path), chosen, how)

        frame = model_spec(path, card)
        yield ReadyModel(frame, card.overlap_px, _name(chosen), how, batch or default_batch(chosen, card), load)


def _own(model: CustomModel, batch: int | None) -> ReadyModel:
    identity = hashlib.sha256(f"{model.name} {model.version}".encode()).hexdigest()
    classes = tuple(entry.model_dump(mode="json") for entry in model.classes)
    frame = ModelSpec(model.name, identity, classes, model.mpp, model.tile_px, model.output_stride)
    return ReadyModel(frame, model.overlap_px, "own predictor", "own", batch or model.batch, lambda: model)


def _name(device: torch.device) -> str:
    import torch

    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return str(device)
