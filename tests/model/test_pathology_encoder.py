from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sampath_wsi.errors import ModelError
from sampath_wsi.model.card import PathologyEncoderSpec
from sampath_wsi.model.pathology_encoder import PathologyEncoder, interpolate_positions

SMALL = {"embed_dim": 48, "depth": 1, "num_heads": 3}


def cubic(distance: float, a: float = -0.75) -> float:
    """Keys' cubic convolution kernel."""
    d = abs(distance)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


def resampling_matrix(old: int, new: int) -> np.ndarray:
    """Bicubic resampling along one axis at DINO's scale (new + 0.1) / old, edges repeated, from the definition."""
    matrix = np.zeros((new, old))
    for i in range(new):
        source = (i + 0.5) * old / (new + 0.1) - 0.5
        for tap in range(math.floor(source) - 1, math.floor(source) + 3):
            matrix[i, min(max(tap, 0), old - 1)] += cubic(source - tap)
    return matrix


@given(st.integers(2, 16), st.integers(1, 40), st.integers(0, 5), st.integers(0, 2**31))
@settings(max_examples=40)
def test_positions_are_interpolated_as_dino_does(old, new, prefix, seed):
    pos_embed = torch.randn(1, prefix + old**2, 3, generator=torch.Generator().manual_seed(seed))
    found = interpolate_positions(pos_embed, new, prefix)
    assert torch.equal(found[:, :prefix], pos_embed[:, :prefix])
    grid = pos_embed[0, prefix:].reshape(old, old, 3).double().numpy()
    matrix = np.eye(old) if old == new else resampling_matrix(old, new)
    expected = np.einsum("iy,jx,yxc->ijc", matrix, matrix, grid).reshape(-1, 3)
    np.testing.assert_allclose(found[0, prefix:].numpy(), expected, atol=2e-4)


def test_positions_that_are_no_square_grid_are_refused():
    with pytest.raises(ModelError, match="not a square grid"):
        interpolate_positions(torch.zeros(1, 1 + 15, 3), 8, 1)


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("vit_tiny_patch16_224", {}),
        ("vit_small_patch8_224", {}),
        ("vit_small_patch32_224", {}),
        ("vit_small_patch14_dinov2", {"init_values": 1e-5}),
        ("vit_small_patch14_reg4_dinov2", {}),
        ("vit_tiny_patch16_224", {"class_token": False, "global_pool": "avg"}),
        ("vit_tiny_patch16_224", {"mlp_layer": "SwiGLUPacked", "act_layer": "silu", "reg_tokens": 2}),
    ],
)
def test_any_plain_vit_gives_the_same_grid(name, kwargs):
    encoder = PathologyEncoder(PathologyEncoderSpec(name=name, kwargs={**SMALL, **kwargs}), 5).eval()
    x = torch.rand(2, 3, 80, 80)
    with torch.no_grad():
        features = encoder(x)
        shifted = encoder(x.roll(encoder.grid, dims=-1))
    assert features.shape == (2, 48, 5, 5)
    assert encoder.channels == 48
    assert not torch.allclose(features, shifted)


def test_features_are_timms_own_in_row_major_order():
    encoder = PathologyEncoder(PathologyEncoderSpec(name="vit_tiny_patch16_224", kwargs=SMALL), 14).eval()
    x = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        found = encoder(x)
        tokens = encoder.model.forward_features(2 * x - 1)
    assert torch.equal(found[0, :, 3, 9], tokens[0, 1 + 3 * 14 + 9])


def test_hipt_is_timms_vit_small():
    with torch.device("meta"):
        vit = PathologyEncoder(PathologyEncoderSpec.hipt(), 64).model
    assert len(vit.state_dict()) == 150
    assert vit.pos_embed.shape == (1, 4097, 384)
    assert {m.eps for m in vit.modules() if isinstance(m, torch.nn.LayerNorm)} == {1e-6}


@pytest.mark.parametrize(
    ("name", "kwargs", "match"),
    [
        ("vit_of_nobody", {}, "has no model"),
        ("resnet18", {}, "not a plain|cannot build"),
        ("vit_tiny_r_s16_p8_224", {}, "not a plain"),
        ("vit_tiny_patch16_224", {"colour": 3}, "cannot build"),
        ("vit_tiny_patch16_224", {"num_heads": 5}, "cannot build"),
    ],
)
def test_what_timm_cannot_build_is_one_line(name, kwargs, match):
    with pytest.raises(ModelError, match=match) as error:
        PathologyEncoder(PathologyEncoderSpec(name=name, kwargs=kwargs), 4)
    assert "\n" not in str(error.value)
