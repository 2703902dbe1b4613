"""SAM-Path: SAM's image encoder beside a pathology encoder, fused, under SAM's decoder with class tokens.

Which encoders are there makes the variants of the paper's Table 1; see :class:`sampath_wsi.model.card.Architecture`.
The arithmetic is that of the authors' published code, whose outputs the tests reproduce.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, Self

import torch
from torch import nn
from torch.nn import functional as F

from sampath_wsi.model.card import IMAGENET_MEAN, IMAGENET_STD, Architecture, Triple
from sampath_wsi.model.libraries import segment_anything
from sampath_wsi.model.pathology_encoder import PathologyEncoder
from sampath_wsi.model.sam_encoder import build_neck, build_sam_encoder

_DECODER_HEADS = 8
_DECODER_MLP_RATIO = 8


class SamPath(nn.Module):
    """The model of an architecture, freshly initialised, everything trainable, in training mode.

    Parameters
    ----------
    architecture
        Encoders, image size and width of the decoder.
    n_classes
        Classes without "unlabelled": the model has one channel more.
    mean, std
        Normalisation of the input of SAM's encoder.

    Attributes
    ----------
    sam_encoder, pathology_encoder
        The encoders; None where the architecture has none.
    neck
        The fusion, or the one encoder's neck. In fine-tuned SAM it is SAM's own and belongs to the frozen encoder.
    prompt, mask_decoder
        Positional encoding with the constant dense prompt, and SAM's decoder with class tokens.

    Raises
    ------
    ModelError
        If timm cannot build the pathology encoder.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self, architecture: Architecture, n_classes: int, *, mean: Triple = IMAGENET_MEAN, std: Triple = IMAGENET_STD
    ) -> None:
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
        predicted IoU ``(B, n_classes + 1)``; float32 at any precision of the encoders.
        """
        return self.decode(self.encode(images, precision))

    def encode(self, images: torch.Tensor, precision: torch.dtype | None = None) -> torch.Tensor:
        """Return the encoders' features, concatenated: ``(B, channels, S / 16, S / 16)``, before the neck."""
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
        """Return logits and predicted IoU from the features of :meth:`encode`; always in float32."""
        # In bfloat16 these few per cent of the work would change several times as many labels as the encoders do.
        with torch.autocast(features.device.type, enabled=False):
            fused = self.neck(features.float())
            logits, iou = self.mask_decoder(fused, *self.prompt(*fused.shape[-2:]))
        return logits, iou

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

    def _frozen_modules(self) -> list[nn.Module]:
        second = self.neck if self.pathology_encoder is None else self.pathology_encoder
        return [module for module in (self.sam_encoder, second) if module is not None]


class ClassTokenDecoder(segment_anything.modeling.MaskDecoder):
    """SAM's decoder with a trainable token for each class in place of mask tokens and prompts, for batches of images.

    There is one token more than channels: as in SAM with several masks wanted, the mask of token 0 is dropped.

    Parameters
    ----------
    channels
        Masks that come out: "unlabelled" and every class.
    dim
        Channels of the features: 256 in the paper.
    """

    def __init__(self, channels: int, dim: int) -> None:
        transformer = segment_anything.modeling.TwoWayTransformer(
            depth=2, embedding_dim=dim, mlp_dim=_DECODER_MLP_RATIO * dim, num_heads=_DECODER_HEADS
        )
        super().__init__(
            transformer_dim=dim, transformer=transformer, num_multimask_outputs=channels, iou_head_hidden_dim=dim
        )

    def forward(
        self, features: torch.Tensor, positions: torch.Tensor, dense_prompt: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Predict masks and their IoU.

        Parameters
        ----------
        features
            ``(B, dim, grid, grid)`` from the neck.
        positions
            ``(1, dim, grid, grid)`` positional encoding.
        dense_prompt
            ``(1, dim, 1, 1)`` added to the features.

        Returns
        -------
        Logits ``(B, channels, 4 * grid, 4 * grid)`` and IoU ``(B, channels)``.
        """
        batch, dim, rows, columns = features.shape
        tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight]).expand(batch, -1, -1)
        tokens, image = self.transformer(features + dense_prompt, positions.expand_as(features), tokens)
        image = self.output_upscaling(image.transpose(1, 2).reshape(batch, dim, rows, columns))
        # The first token is SAM's IoU token. The first mask's network runs only so that it has (zero) gradients.
        weights = [mlp(tokens[:, i + 1]) for i, mlp in enumerate(self.output_hypernetworks_mlps)]
        logits = (torch.stack(weights, dim=1)[:, 1:] @ image.flatten(2)).unflatten(2, image.shape[2:])
        return logits, self.iou_prediction_head(tokens[:, 0])[:, 1:]

    def copy_first_hypernetwork(self) -> None:
        """Let every class begin with the hypernetwork of token 0."""
        first, *others = self.output_hypernetworks_mlps
        for mlp in others:
            mlp.load_state_dict(first.state_dict())


class DensePrompt(nn.Module):
    """SAM's prompt encoder without prompts: the positional encoding and "no mask"; never trained.

    ``dim`` is the number of channels of the features.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.pe_layer = segment_anything.modeling.prompt_encoder.PositionEmbeddingRandom(dim // 2)
        self.no_mask_embed = nn.Embedding(1, dim).requires_grad_(False)

    def forward(self, rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the positional encoding ``(1, dim, rows, columns)`` and the dense prompt ``(1, dim, 1, 1)``."""
        return self.pe_layer((rows, columns)).unsqueeze(0), self.no_mask_embed.weight.view(1, -1, 1, 1)


def trainable_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that receive gradients."""
    return [p for p in model.parameters() if p.requires_grad]


def upsample_logits(logits: torch.Tensor, size_px: tuple[int, int]) -> torch.Tensor:
    """Resize logits ``(B, channels, h, w)`` to ``(height, width)`` bilinearly, corners not aligned."""
    return F.interpolate(logits, size_px, mode="bilinear", align_corners=False)


def predict_labels(logits: torch.Tensor) -> torch.Tensor:
    """Return the label of every pixel: the best class, never "unlabelled".

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
