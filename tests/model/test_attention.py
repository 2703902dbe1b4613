from __future__ import annotations

import pytest
import torch

from sampath_wsi.model.libraries import segment_anything
from sampath_wsi.model.sam_encoder import DecomposedAttention, attend_biased, attend_folded, relative_scores

from .helpers import images, model, small_sam

Attention = segment_anything.modeling.image_encoder.Attention
GRIDS = [(1, 1), (3, 5), (14, 14), (16, 16)]


def pair(grid, heads=3, channels=8):
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


@pytest.mark.parametrize("limit", [1, 15 * 4 * 4, 15 * 15 * 4, 3 * 15 * 15 * 4, 10**9])
def test_the_bias_stays_below_its_limit(limit, monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    q, k, v = (torch.randn(4, 3, 15, 8) for _ in range(3))
    rel_h, rel_w = relative_scores(q, torch.randn(5, 8), torch.randn(9, 8), (3, 5))
    seen, attend = [], torch.nn.functional.scaled_dot_product_attention

    def spy(*args, attn_mask):
        seen.append(attn_mask.nbytes)
        return attend(*args, attn_mask=attn_mask)

    expected = attend_folded(q, k, v, rel_h, rel_w)
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    found = attend_biased(q, k, v, rel_h, rel_w, bias_bytes=limit)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert max(seen) <= max(limit, one_query := 15 * 4), one_query


@pytest.mark.parametrize("image_size", [48, 64, 112])
@pytest.mark.parametrize("gradients", [False, True])
def test_the_encoder_equals_segment_anythings(image_size, gradients):
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
