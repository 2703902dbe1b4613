from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

import sampath_wsi.model.torchvision_compat  # noqa: F401

# isort: split
from segment_anything.modeling.image_encoder import Attention

from sampath_wsi.model import attention
from sampath_wsi.model.attention import DecomposedAttention

from .helpers import images, model, small_sam

GRIDS = [(1, 1), (3, 5), (14, 14), (16, 16)]


def pair(grid: tuple[int, int], heads: int = 3, channels: int = 8) -> tuple[Attention, DecomposedAttention]:
    """segment-anything's attention with random weights, and this project's over the same parameters."""
    torch.manual_seed(0)
    reference = Attention(heads * channels, heads, use_rel_pos=True, input_size=grid)
    for parameter in reference.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return reference, DecomposedAttention(reference)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("gradients", [False, True])
def test_equals_segment_anythings(grid, gradients):
    reference, fused = pair(grid)
    x = torch.randn(2, *grid, 24)
    with torch.set_grad_enabled(gradients):
        torch.testing.assert_close(fused(x), reference(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("grid", GRIDS[1:3])
def test_gradients_equal_segment_anythings(grid):
    reference, fused = pair(grid)
    x, weight = torch.randn(2, *grid, 24), torch.randn(2, *grid, 24)
    (reference(x) * weight).sum().backward()
    expected = {name: parameter.grad for name, parameter in reference.named_parameters()}
    reference.zero_grad(set_to_none=True)
    (fused(x) * weight).sum().backward()
    for name, parameter in fused.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-4, msg=name)


@pytest.mark.parametrize("limit", [1, 3 * 15 * 4 * 4, 3 * 15 * 15 * 4, 10**9])
def test_the_bias_stays_below_its_limit_whatever_the_pieces(limit, monkeypatch: pytest.MonkeyPatch):
    reference, fused = pair((3, 5))
    monkeypatch.setattr(attention, "BIAS_BYTES", limit)
    seen = []

    def spy(*args: Any, attn_mask: torch.Tensor) -> torch.Tensor:
        seen.append(attn_mask.nbytes)
        return F.scaled_dot_product_attention(*args, attn_mask=attn_mask)

    monkeypatch.setattr(attention, "F", type("F", (), {"scaled_dot_product_attention": staticmethod(spy)}))
    with torch.no_grad():
        x = torch.randn(4, 3, 5, 24)
        torch.testing.assert_close(fused(x), reference(x), rtol=1e-5, atol=1e-5)
    one_query = 3 * 15 * 4
    assert max(seen) <= max(limit, one_query)


@pytest.mark.parametrize("image_size", [48, 64, 112])
@pytest.mark.parametrize("gradients", [False, True])
def test_the_encoder_equals_segment_anythings_before_its_neck(image_size, gradients):
    # Grids of 3, 4 and 7 with windows of 3: exact, and padded at the far edges.
    reference = small_sam(image_size).image_encoder
    reference.neck = torch.nn.Identity()
    encoder = model("both", image_size=image_size).sam_encoder
    encoder.load_state_dict(reference.state_dict())
    with torch.set_grad_enabled(gradients):
        x = images(2, image_size)
        torch.testing.assert_close(encoder(x), reference(x), rtol=1e-5, atol=1e-5)


def test_bfloat16_stays_near_float32():
    _, fused = pair((14, 14))
    x = torch.randn(2, 14, 14, 24)
    with torch.no_grad():
        expected = fused(x)
        found = fused.to(torch.bfloat16)(x.to(torch.bfloat16))
    assert found.dtype == torch.bfloat16
    assert (found.float() - expected).abs().max() < 0.05 * expected.abs().max()


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.bfloat16, 0.1)])
@pytest.mark.parametrize("grid", [(14, 14), (32, 32)])
def test_on_a_gpu(dtype, tolerance, grid):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    reference, fused = pair(grid, heads=2, channels=64)
    for parameter in reference.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    x = torch.randn(2, *grid, 128)
    with torch.no_grad():
        expected = reference(x)
        found = fused.to("cuda", dtype)(x.to("cuda", dtype)).float().cpu()
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()
