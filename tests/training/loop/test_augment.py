"""Augmentation changes image and label map together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from sampath_wsi.training.augment import AugmentSpec, augment

NO_COLOUR = AugmentSpec(crop_scale=(0.3, 1.0), jitter=0.0)


def _sample(size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """An image whose red channel shows its labels: four quadrants and a spot that breaks every symmetry."""
    label = torch.ones(size, size, dtype=torch.uint8)
    label[: size // 2, size // 2 :], label[size // 2 :, : size // 2], label[size // 2 :, size // 2 :] = 2, 3, 4
    label[4:20, 4:12] = 0
    return (label.float() / 4).expand(3, -1, -1).clone(), label


@settings(max_examples=60)
@given(st.integers(0, 2**31))
def test_image_and_labels_stay_together(seed: int) -> None:
    image, label = augment(*_sample(), NO_COLOUR, 64, np.random.default_rng(seed))
    assert image.shape == (3, 64, 64)
    assert label.shape == (64, 64)
    assert label.dtype == torch.uint8
    # Only where the image was interpolated across a border may they differ.
    assert ((image[0] * 4).round() == label).float().mean() > 0.9


def test_turned_crops_keep_labels_and_the_middle_in_place() -> None:
    spec = AugmentSpec(crop_scale=(0.5, 1.0), turn=True, flip=False, rotate_90=False, jitter=0.0)
    found = set()
    for seed in range(30):
        image, label = augment(*_sample(), spec, 64, np.random.default_rng(seed))
        assert ((image[0] * 4).round() == label).float().mean() > 0.85
        found.add(int(label[32, 32]))
    assert len(found) > 1
    whole = AugmentSpec(crop_scale=(1, 1), crop_ratio=(1, 1), turn=True, flip=False, rotate_90=False, jitter=0.0)
    dot = torch.ones(1, 65, 65, dtype=torch.uint8)[0]
    dot[28:37, 28:37] = 2
    for seed in range(10):
        _, turned = augment(torch.rand(3, 65, 65), dot, whole, 65, np.random.default_rng(seed))
        assert turned[32, 32] == 2
        assert abs(int((turned == 2).sum()) - 81) <= 14
        assert (turned > 0).all(), "mirrored, not padded"


def test_every_turn_and_flip_occurs_and_crops_zoom() -> None:
    spec = AugmentSpec(crop_scale=(1.0, 1.0), jitter=0.0)
    found = {augment(*_sample(), spec, 64, np.random.default_rng(k))[1].numpy().tobytes() for k in range(100)}
    assert len(found) == 8
    zoomed = [augment(*_sample(), NO_COLOUR, 64, np.random.default_rng(k))[1] for k in range(20)]
    assert any((z == 0).sum() > 1.3 * 128 for z in zoomed)


def test_same_generator_same_result() -> None:
    one, two = (augment(*_sample(), AugmentSpec(), 64, np.random.default_rng(3)) for _ in range(2))
    torch.testing.assert_close(one, two, rtol=0, atol=0)
    still = AugmentSpec(crop_scale=(1, 1), flip=False, rotate_90=False, jitter=0)
    torch.testing.assert_close(augment(*_sample(), still, 64, np.random.default_rng(0)), _sample(), rtol=0, atol=0)


def test_colour_changes_within_bounds_and_leaves_labels() -> None:
    image, label = torch.rand(3, 16, 16) * 0.6 + 0.2, torch.randint(0, 4, (16, 16), dtype=torch.uint8)
    spec = AugmentSpec(crop_scale=(1, 1), flip=False, rotate_90=False, jitter=0.1)
    changed, same = augment(image, label, spec, 16, np.random.default_rng(1))
    assert torch.equal(label, same)
    assert 0.001 < (changed - image).abs().mean() < 0.2
    assert changed.min() >= 0
    assert changed.max() <= 1
    grey = torch.full((3, 4, 4), 0.5)
    turned, _ = augment(grey, label[:4, :4], spec, 4, np.random.default_rng(2))
    torch.testing.assert_close(turned[0], turned[2], rtol=0, atol=1e-6)


@pytest.mark.parametrize("scale", [(0.08, 1.0), (1.0, 1.0)])
@pytest.mark.parametrize("size", [(20, 30), (70, 33), (90, 80)])
def test_images_of_any_size_give_square_tiles(size: tuple[int, int], scale: tuple[float, float]) -> None:
    image, label = torch.rand(3, *size), torch.ones(size, dtype=torch.uint8)
    for seed in range(8):
        changed, labels = augment(image, label, AugmentSpec(crop_scale=scale), 40, np.random.default_rng(seed))
        assert changed.shape == (3, 40, 40)
        assert labels.shape == (40, 40)
        if scale == (1.0, 1.0):
            assert int(labels.sum()) == min(size[0], 40) * min(size[1], 40), "what is padded is unlabelled"


def test_stains_change_tissue_and_leave_glass_nearly_white() -> None:
    spec = AugmentSpec(crop_scale=(1, 1), flip=False, rotate_90=False, jitter=0, stain=0.2)
    # Haematoxylin alone: its optical density, times 1.
    blue = torch.tensor([0.650, 0.704, 0.286]).neg().exp().view(3, 1, 1).expand(3, 8, 8)
    label = torch.zeros(8, 8, dtype=torch.uint8)
    for seed in range(10):
        changed, _ = augment(blue, label, spec, 8, np.random.default_rng(seed))
        assert 0.005 < (changed - blue).abs().mean() < 0.2
        white, _ = augment(torch.ones(3, 8, 8), label, spec, 8, np.random.default_rng(seed))
        assert white.min() > 0.9
    nothing = AugmentSpec(crop_scale=(1, 1), flip=False, rotate_90=False, jitter=0, stain=1e-9)
    torch.testing.assert_close(augment(blue, label, nothing, 8, np.random.default_rng(0))[0], blue.contiguous())


@pytest.mark.parametrize("bad", [{"crop_scale": (0.0, 1.0)}, {"crop_scale": (0.9, 0.5)}, {"jitter": 2}, {"blur": 1}])
def test_impossible_augmentation_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        AugmentSpec.model_validate(bad)
