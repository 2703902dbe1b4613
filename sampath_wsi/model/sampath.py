"""SAM-Path: SAM's image encoder beside a pathology encoder, fused, under SAM's decoder with class tokens.

Which encoders are there makes the variants of the paper's Table 1; see :class:`sampath_wsi.model.card.Architecture`.
The arithmetic is that of the authors' published code, whose outputs the tests reproduce.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, Self

import torch
from torch import nn
from torch.nn import functional as F

from sampath_wsi.model.card import IMAGENET_MEAN, IMAGENET_STD, Architecture, Triple
from sampath_wsi.model.decoder import ClassTokenDecoder, DensePrompt
from sampath_wsi.model.pathology_encoder import PathologyEncoder
from sampath_wsi.model.sam_encoder import build_neck, build_sam_encoder


class SamPath(nn.Module):
    """The model of an :class:`Architecture`, freshly initialised; made by :func:`build_model`.

    Attributes
    ----------
    sam_encoder, pathology_encoder
        The encoders; None where the architecture has none.
    neck
        The fusion, or the one encoder's neck. In fine-tuned SAM it is SAM's own and belongs to the frozen encoder.
    prompt, mask_decoder
        Positional encoding with the constant dense prompt, and SAM's decoder with class tokens.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, architecture: Architecture, n_classes: int, mean: Triple, std: Triple) -> None:
        super().__init__()
        self.architecture = architecture
        self.n_classes = n_classes
        self.sam_encoder: Any = None
        self.pathology_encoder: PathologyEncoder | None = None
        channels = 0
        if architecture.sam is not None:
            self.sam_encoder = build_sam_encoder(architecture.sam, architecture.image_size)
            channels += architecture.sam.embed_dim
        if architecture.pathology is not None:
            self.pathology_encoder = PathologyEncoder(architecture.pathology, architecture.grid)
            channels += self.pathology_encoder.channels
        self.neck = build_neck(channels, architecture.decoder_dim)
        self.prompt = DensePrompt(architecture.decoder_dim)
        self.mask_decoder = ClassTokenDecoder(n_classes + 1, architecture.decoder_dim)
        self.register_buffer("mean", torch.tensor(mean, device="cpu").view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, device="cpu").view(1, 3, 1, 1), persistent=False)
        self._frozen = False
        self._precision = torch.float32

    # -- forward ----------------------------------------------------------------------------------------------

    def forward(self, images: torch.Tensor, precision: torch.dtype | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Segment images.

        Parameters
        ----------
        images
            ``(B, 3, H, W)`` float RGB in [0, 1]; resized bilinearly to ``image_size`` if they are of another size.
        precision
            Half precision of the encoders for this pass, in place of the one that they are set to.

        Returns
        -------
        Logits ``(B, n_classes + 1, S / 4, S / 4)`` with S the ``image_size``, channel 0 "unlabelled", and the
        predicted IoU ``(B, n_classes + 1)``; float32 whatever the precision of the encoders.
        """
        return self.decode(self.encode(images, precision))

    def encode(self, images: torch.Tensor, precision: torch.dtype | None = None) -> torch.Tensor:
        """Features of the encoders, concatenated: ``(B, channels, S / 16, S / 16)``, before the neck."""
        size = self.architecture.image_size
        if images.shape[-2:] != (size, size):
            images = F.interpolate(images, (size, size), mode="bilinear", align_corners=False)
        with_gradients = torch.is_grad_enabled() and not self._frozen
        precision = precision or self._precision
        mixed = torch.autocast(images.device.type, precision) if precision != torch.float32 else nullcontext()
        with torch.set_grad_enabled(with_gradients), mixed:
            features = []
            if self.sam_encoder is not None:
                features.append(self.sam_encoder((images - self.mean) / self.std))
            if self.pathology_encoder is not None:
                features.append(self.pathology_encoder(images))
            return torch.cat(features, dim=1)

    def decode(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits and predicted IoU from the features of :meth:`encode`; always in float32."""
        # In bfloat16 these few per cent of the work would change several times as many labels as the encoders do.
        with torch.autocast(features.device.type, enabled=False):
            fused = self.neck(features.float())
            logits, iou = self.mask_decoder(fused, *self.prompt(*fused.shape[-2:]))
        return logits, iou

    # -- freezing and precision -------------------------------------------------------------------------------

    def freeze_encoders(self) -> Self:
        """Freeze the encoders as the paper does: no gradients, no stored activations, always in eval mode.

        SAM's own neck is frozen with it where there is no pathology encoder.
        """
        self._frozen = True
        for module in self._frozen_modules():
            module.requires_grad_(False)
        return self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set the training mode; frozen encoders stay in eval mode."""
        super().train(mode)
        if self._frozen:
            for module in self._frozen_modules():
                module.eval()
        return self

    def set_encoder_precision(self, dtype: torch.dtype) -> Self:
        """Let the encoders multiply in ``dtype`` (e.g. bfloat16), weights stored so.

        Norms and the sums between blocks stay float32, and so do neck and decoder.
        """
        self._precision = dtype
        for encoder in (self.sam_encoder, self.pathology_encoder):
            for module in encoder.modules() if encoder is not None else ():
                if isinstance(module, nn.Linear | nn.Conv2d):
                    module.to(dtype)
        return self

    def _frozen_modules(self) -> Iterator[nn.Module]:
        if self.sam_encoder is not None:
            yield self.sam_encoder
        if self.pathology_encoder is not None:
            yield self.pathology_encoder
        else:
            yield self.neck


def build_model(
    architecture: Architecture, n_classes: int, *, mean: Triple = IMAGENET_MEAN, std: Triple = IMAGENET_STD
) -> SamPath:
    """Build a model with fresh weights, everything trainable, in training mode.

    Parameters
    ----------
    architecture
        Encoders, image size and width of the decoder.
    n_classes
        Classes without "unlabelled": the model has one channel more.
    mean, std
        Normalisation of the input of SAM's encoder.

    Raises
    ------
    ModelError
        If timm cannot build the pathology encoder.
    """
    return SamPath(architecture, n_classes, mean, std)


def trainable_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that receive gradients."""
    return [p for p in model.parameters() if p.requires_grad]


def frozen_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that do not receive gradients."""
    return [p for p in model.parameters() if not p.requires_grad]


def upsample_logits(logits: torch.Tensor, size_px: tuple[int, int]) -> torch.Tensor:
    """Resize logits ``(B, channels, h, w)`` to ``(height, width)`` bilinearly, corners not aligned."""
    return F.interpolate(logits, size_px, mode="bilinear", align_corners=False)


def predict_labels(logits: torch.Tensor) -> torch.Tensor:
    """The label of every pixel: the best class, never "unlabelled".

    Parameters
    ----------
    logits
        ``(B, n_classes + 1, h, w)``; channel 0 is left out. Probabilities do as well.

    Returns
    -------
    ``(B, h, w)`` uint8 in 1 ... n_classes; of equal classes the first.
    """
    # A running maximum reads each channel once; torch's argmax over a strided axis is about four times slower.
    logits = logits.detach()
    best = logits[:, 1].clone()
    labels = torch.ones_like(best, dtype=torch.uint8)
    for channel in range(2, logits.shape[1]):
        better = logits[:, channel] > best
        labels.masked_fill_(better, channel)
        torch.maximum(best, logits[:, channel], out=best)
    return labels
