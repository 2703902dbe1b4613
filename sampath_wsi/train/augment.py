"""Random changes of image and label map together: crop, flips, turns, colour.

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


class AugmentSpec(BaseModel):
    """What is changed at random; the defaults are the paper's recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    crop_scale: tuple[float, float] = (0.08, 1.0)
    """Least and largest share of the image's area that a crop covers; (1, 1) = no crop."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Least and largest aspect ratio of a crop."""
    flip: bool = True
    rotate_90: bool = True
    jitter: float = Field(default=0.1, ge=0, le=0.5)
    """Largest change of brightness, contrast, saturation (as a factor) and hue (in turns)."""

    @model_validator(mode="after")
    def _ranges_make_sense(self) -> AugmentSpec:
        if not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1 or not 0 < self.crop_ratio[0] <= self.crop_ratio[1]:
            raise ValueError("crop_scale must be 0 < least <= largest <= 1 and crop_ratio 0 < least <= largest")
        return self


def augment(image: Tensor, label: Tensor, spec: AugmentSpec, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Change a sample at random.

    Parameters
    ----------
    image
        ``(3, H, W)`` float RGB in [0, 1].
    label
        ``(H, W)`` uint8.
    spec
        What to change.
    rng
        Where the random numbers come from.

    Returns
    -------
    Image and label map of the same sizes (a turn by 90 degrees swaps them where H != W is cropped back by the crop,
    so images that are not square are only turned by 180 degrees).
    """
    image, label = _crop(image, label, spec, rng)
    if spec.flip:
        for axis in (-1, -2):
            if rng.random() < 0.5:
                image, label = image.flip(axis), label.flip(axis)
    if spec.rotate_90:
        turns = int(rng.integers(4)) if image.shape[-1] == image.shape[-2] else 2 * int(rng.integers(2))
        image, label = torch.rot90(image, turns, (-2, -1)), torch.rot90(label, turns, (-2, -1))
    if spec.jitter:
        image = _jitter(image, spec.jitter, rng)
    return image.contiguous(), label.contiguous()


def _crop(image: Tensor, label: Tensor, spec: AugmentSpec, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A random rectangle, resized to the old size: bilinearly, labels to the nearest."""
    height, width = label.shape
    if spec.crop_scale == (1.0, 1.0):
        return image, label
    top, left, rows, columns = 0, 0, height, width
    for _ in range(_CROP_TRIES):
        area = rng.uniform(*spec.crop_scale) * height * width
        ratio = math.exp(rng.uniform(math.log(spec.crop_ratio[0]), math.log(spec.crop_ratio[1])))
        tall, wide = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < tall <= height and 0 < wide <= width:
            rows, columns = tall, wide
            top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
            break
    part = np.s_[..., top : top + rows, left : left + columns]
    size = (height, width)
    image = F.interpolate(image[part][None], size, mode="bilinear", align_corners=False, antialias=True)[0]
    label = F.interpolate(label[part][None, None].float(), size, mode="nearest-exact")[0, 0].to(label.dtype)
    return image, label


def _jitter(image: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    """Brightness, contrast, saturation and hue, in this order."""
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
    """Matrix that turns colours around the grey axis, keeping grey as it is."""
    cosine, sine = math.cos(2 * math.pi * turns), math.sin(2 * math.pi * turns)
    third, root = (1 - cosine) / 3, sine / math.sqrt(3)
    return torch.tensor(
        [
            [cosine + third, third - root, third + root],
            [third + root, cosine + third, third - root],
            [third - root, third + root, cosine + third],
        ]
    )
