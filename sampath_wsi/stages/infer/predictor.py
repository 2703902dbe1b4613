"""From tiles to class probabilities on one device: the part of stage 2 that computes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from sampath_wsi.errors import ModelError
from sampath_wsi.machine.device import Precision, initialize_mkl
from sampath_wsi.machine.memory import keep_freed_memory
from sampath_wsi.probability import to_bytes

if TYPE_CHECKING:
    from sampath_wsi.model.bundle import Bundle
    from sampath_wsi.model.card import ModelCard

log = logging.getLogger(__name__)

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def default_batch(device: torch.device, card: ModelCard) -> int:
    """Return the tiles of a batch: enough to fill a GPU (a CPU gains nothing), few enough to lose little in a crash."""
    images_of_1024 = 1 if device.type == "cpu" else 16
    return max(1, min(64, round(images_of_1024 * (1024 / card.architecture.image_size) ** 2)))


class Predictor:
    """A model bundle on a device, fed with tiles as they lie in the tile store.

    The encoders run at ``precision``, neck and decoder in fp32. Probabilities are the softmax over the real classes:
    the channel "unlabelled" takes no part, as it takes none in the prediction. At most ``at_once`` tiles are computed
    together (None: a whole batch), since a batch may be that of a larger device. When the device runs out of memory,
    their number is halved for good. Where fp16 overflows, the tiles at hand are computed again in bf16.
    """

    def __init__(self, bundle: Bundle, device: torch.device, precision: Precision, at_once: int | None = None) -> None:
        if device.type == "cpu":
            keep_freed_memory()
            initialize_mkl()
        self.card = bundle.card
        self.device = device
        self.precision = precision
        self.model = bundle.model.to(device).eval().set_encoder_precision(_DTYPES[precision])
        self._at_once = at_once

    def __call__(self, rgb: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Predict a batch.

        Parameters
        ----------
        rgb
            ``(tile, y, x, 3)``, at the model's resolution.

        Returns
        -------
        ``probability (tile, class, y, x)`` uint8, p = v / 255, at the decoder's own resolution, and the IoU that the
        model predicts for its own mask, ``(tile, class)`` float32.

        Raises
        ------
        ModelError
            If the model gives values that are not finite.
        """
        images = torch.from_numpy(rgb)
        probabilities, ious, start = [], [], 0
        while start < len(images):
            at_once = self._at_once or len(images)
            try:
                probability, iou = self._forward(images[start : start + at_once])
            except torch.cuda.OutOfMemoryError:
                if at_once == 1:
                    raise
                self._at_once = at_once // 2
                torch.cuda.empty_cache()
                log.warning("out of memory on %s: going on with %d tiles at once", self.device, self._at_once)
                continue
            probabilities.append(probability)
            ious.append(iou)
            start += at_once
        return np.concatenate(probabilities), np.concatenate(ious)

    @torch.inference_mode()
    def _forward(self, images: torch.Tensor) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        pixels = images.to(self.device, non_blocking=True).permute(0, 3, 1, 2).float() / 255
        logits, iou = self.model(pixels)
        # Nothing is remembered of this, so that a resumed run computes every batch as an undisturbed one does.
        if self.precision == "fp16" and not _finite(logits, iou):
            log.warning("fp16 overflows for these %d tiles: computing them in bf16", len(images))
            logits, iou = self.model(pixels, torch.bfloat16)
        if not _finite(logits, iou):
            raise ModelError(
                f"the model '{self.card.name}' gives values that are not finite numbers in {self.precision}",
                "Its weights are damaged or belong to another architecture: get it again, or try precision fp32.",
            )
        probability = to_bytes(torch.softmax(logits[:, 1:].float(), dim=1), 1)
        return probability.cpu().numpy(), iou[:, 1:].float().cpu().numpy()


def _finite(*values: torch.Tensor) -> bool:
    return all(bool(torch.isfinite(value).all()) for value in values)
