"""Random changes of image and label map together: crop, flips, turns, stain, colour.

What happens to a sample is drawn from one random generator, which the caller seeds, so that a run can be repeated
and resumed.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor
from torch.nn import functional as F

_GREY = (0.299, 0.587, 0.114)
_CROP_TRIES = 10
# Optical densities (R, G, B) of haematoxylin and eosin: Ruifrok and Johnston, 2001; the third is their cross product.
_HAEMATOXYLIN, _EOSIN = (0.650, 0.704, 0.286), (0.072, 0.990, 0.105)
_FROM_STAINS = torch.tensor([_HAEMATOXYLIN, _EOSIN, np.cross(_HAEMATOXYLIN, _EOSIN).tolist()]).T
_TO_STAINS = torch.linalg.inv(_FROM_STAINS)
_STAIN_SHIFT = 0.2


class AugmentSpec(BaseModel):
    """The random changes of a training tile; the defaults are the paper's recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    crop_scale: tuple[float, float] = (0.08, 1.0)
    """Least and largest share of the image's area that a crop covers; (1, 1) = no crop."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Least and largest aspect ratio of a crop."""
    turn: bool = False
    """Turn crops by any angle; beyond its edges the image is mirrored. Not in the paper's recipe."""
    flip: bool = True
    rotate_90: bool = True
    jitter: float = Field(default=0.1, ge=0, le=0.5)
    """Largest change of brightness, contrast, saturation (as a factor) and hue (in turns)."""
    stain: float = Field(default=0.0, ge=0, le=0.5)
    """Largest change of the amounts of haematoxylin and eosin, as a factor; not in the paper's recipe."""

    @model_validator(mode="after")
    def _ranges_make_sense(self) -> AugmentSpec:
        if not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1 or not 0 < self.crop_ratio[0] <= self.crop_ratio[1]:
            raise ValueError("crop_scale must be 0 < least <= largest <= 1 and crop_ratio 0 < least <= largest")
        return self


def augment(
    image: Tensor, label: Tensor, spec: AugmentSpec, size_px: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Cut a tile from a sample and change it at random.

    Parameters
    ----------
    image
        ``(3, H, W)`` float RGB in [0, 1], of any size.
    label
        ``(H, W)`` uint8.
    spec
        What to change.
    size_px
        Side of the tile.
    rng
        Where the random numbers come from.

    Returns
    -------
    Image ``(3, size_px, size_px)`` and label map ``(size_px, size_px)``.
    """
    image, label = _crop(image, label, spec, size_px, rng)
    if spec.flip:
        for axis in (-1, -2):
            if rng.random() < 0.5:
                image, label = image.flip(axis), label.flip(axis)
    if spec.rotate_90:
        turns = int(rng.integers(4))
        image, label = torch.rot90(image, turns, (-2, -1)), torch.rot90(label, turns, (-2, -1))
    if spec.stain:
        image = _restain(image, spec.stain, rng)
    if spec.jitter:
        image = _jitter(image, spec.jitter, rng)
    return image.contiguous(), label.contiguous()


def _crop(
    image: Tensor, label: Tensor, spec: AugmentSpec, size_px: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Return a random rectangle, resized to the tile: bilinearly, labels to the nearest."""
    if spec.crop_scale == (1.0, 1.0) and not spec.turn:
        return _crop_unscaled(image, label, size_px, rng)
    height, width = label.shape
    top, left, rows, columns = 0, 0, height, width
    for _ in range(_CROP_TRIES):
        area = rng.uniform(*spec.crop_scale) * height * width
        ratio = math.exp(rng.uniform(math.log(spec.crop_ratio[0]), math.log(spec.crop_ratio[1])))
        tall, wide = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < tall <= height and 0 < wide <= width:
            rows, columns = tall, wide
            top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
            break
    if spec.turn:
        return _turned(image, label, (left, top, columns, rows), size_px, rng.uniform(0, 2 * math.pi))
    part = np.s_[..., top : top + rows, left : left + columns]
    size = (size_px, size_px)
    image = F.interpolate(image[part][None], size, mode="bilinear", align_corners=False, antialias=True)[0]
    label = F.interpolate(label[part][None, None].float(), size, mode="nearest-exact")[0, 0].to(label.dtype)
    return image, label


def _turned(
    image: Tensor, label: Tensor, box: tuple[int, int, int, int], size_px: int, angle: float
) -> tuple[Tensor, Tensor]:
    """Return the rectangle (left, top, width, height), turned about its centre by an angle in radians, as a tile."""
    left, top, columns, rows = box
    height, width = label.shape
    cosine, sine = math.cos(angle), math.sin(angle)
    # From the tile's coordinates to the image's, both from -1 to 1.
    theta = torch.tensor(
        [
            [cosine * columns / width, -sine * rows / width, (2 * left + columns) / width - 1],
            [sine * columns / height, cosine * rows / height, (2 * top + rows) / height - 1],
        ]
    )
    grid = F.affine_grid(theta[None], [1, 1, size_px, size_px], align_corners=False)
    image = F.grid_sample(image[None], grid, mode="bilinear", padding_mode="reflection", align_corners=False)[0]
    labels = label[None, None].float()
    labels = F.grid_sample(labels, grid, mode="nearest", padding_mode="reflection", align_corners=False)[0, 0]
    return image, labels.to(label.dtype)


def _crop_unscaled(image: Tensor, label: Tensor, size_px: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Return a random window of the tile's size; a smaller image is padded with white, unlabelled."""
    top, left = (int(rng.integers(max(0, n - size_px) + 1)) for n in label.shape)
    part = np.s_[..., top : top + size_px, left : left + size_px]
    image, label = image[part], label[part]
    lacking = (0, size_px - label.shape[1], 0, size_px - label.shape[0])
    return F.pad(image, lacking, value=1.0), F.pad(label, lacking)


def _restain(image: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    """Change the amounts of the stains: scale and shift the optical densities of haematoxylin, eosin and a residual."""
    factor = image.new_tensor(rng.uniform(1 - strength, 1 + strength, 3)).view(3, 1, 1)
    shift = image.new_tensor(rng.uniform(-strength, strength, 3) * _STAIN_SHIFT).view(3, 1, 1)
    density = -torch.log(image.clamp_min(1 / 255))
    amounts = torch.einsum("ij,jhw->ihw", _TO_STAINS.to(image), density) * factor + shift
    return torch.exp(-torch.einsum("ij,jhw->ihw", _FROM_STAINS.to(image), amounts)).clamp(0, 1)


def _jitter(image: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    """Change brightness, contrast, saturation and hue, in this order."""
    brightness, contrast, saturation = rng.uniform(1 - strength, 1 + strength, 3)
    hue = rng.uniform(-strength, strength)
    grey_weights = image.new_tensor(_GREY).view(3, 1, 1)
    image = image * brightness
    mean = (image * grey_weights).sum(0).mean()
    image = mean + (image - mean) * contrast
    grey = (image * grey_weights).sum(0, keepdim=True)
    image = grey + (image - grey) * saturation
    return torch.einsum("ij,jhw->ihw", _hue_turn(hue).to(image), image).clamp(0, 1)


def _hue_turn(turns: float) -> Tensor:
    """Return the matrix that turns colours around the grey axis, keeping grey as it is."""
    cosine, sine = math.cos(2 * math.pi * turns), math.sin(2 * math.pi * turns)
    third, root = (1 - cosine) / 3, sine / math.sqrt(3)
    return torch.tensor(
        [
            [cosine + third, third - root, third + root],
            [third + root, cosine + third, third - root],
            [third - root, third + root, cosine + third],
        ]
    )
