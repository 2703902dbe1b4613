from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from sampath_wsi.errors import ModelError
from sampath_wsi.model.card import IMAGENET_MEAN, IMAGENET_STD, SAM_SIZES, Architecture, SamEncoderSpec
from sampath_wsi.model.libraries import segment_anything
from sampath_wsi.model.sam_encoder import build_sam_encoder
from sampath_wsi.model.sampath import (
    SamPath,
    predict_labels,
    trainable_parameters,
    upsample_logits,
)
from sampath_wsi.model.zoo import TEMPLATES

from .helpers import VARIANTS, architecture, images, model


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("size", [64, 96])
def test_shapes(variant, size):
    with torch.no_grad():
        logits, iou = model(variant)(images(2, size))
    assert logits.shape == (2, 4, 16, 16)
    assert iou.shape == (2, 4)
    assert logits.dtype == iou.dtype == torch.float32


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_that_is_trained_receives_a_gradient(variant):
    built = model(variant).train()
    logits, iou = built(images())
    (logits.square().mean() + iou.square().mean()).backward()
    assert [name for name, p in built.named_parameters() if p.requires_grad and p.grad is None] == []
    assert built.prompt.no_mask_embed.weight.grad is None


@pytest.mark.parametrize("variant", VARIANTS)
def test_frozen_encoders_hold_nothing_and_stay_in_eval_mode(variant):
    built = model(variant).freeze_encoders().train()
    assert built.training
    assert built.mask_decoder.training
    features = built.encode(images())
    assert not features.requires_grad
    assert features.grad_fn is None
    for encoder in (built.sam_encoder, built.pathology_encoder):
        assert encoder is None or not any(module.training for module in encoder.modules())
    logits, iou = built(images())
    (logits.mean() + iou.mean()).backward()
    trained = {name.split(".")[0] for name, p in built.named_parameters() if p.grad is not None}
    assert trained == ({"mask_decoder"} if variant == "sam" else {"mask_decoder", "neck"})
    assert all(p.requires_grad for p in trainable_parameters(built))


def test_unfrozen_encoders_do_train():
    built = model().train()
    assert built.encode(images()).requires_grad


def test_parameters_of_the_paper():
    with torch.device("meta"):
        built = SamPath(TEMPLATES["sampath-bcss"].architecture, 5).freeze_encoders()
    decoder, fusion = count(built.mask_decoder), count(built.neck)
    assert (round(decoder / 1e6, 2), round(fusion / 1e6, 2)) == (4.48, 0.89)
    assert round((decoder + fusion) / 1e6, 2) == 5.37
    assert sum(p.numel() for p in trainable_parameters(built)) == decoder + fusion
    # The published 116.7 M count SAM's neck, which SAM-Path carries without running it, and HIPT's position
    # embedding before it is interpolated from 14 x 14 to 64 x 64 cells.
    sam_neck = 768 * 256 + 256 * 256 * 9 + 2 * 2 * 256
    interpolated = (64**2 - 14**2) * 384
    assert round((count(built) + sam_neck - interpolated) / 1e6, 1) == 116.7


@pytest.mark.parametrize("size", SAM_SIZES)
def test_public_sizes_have_segment_anythings_shapes(size):
    with torch.device("meta"):
        expected = segment_anything.sam_model_registry[size]().image_encoder.state_dict()
        found = build_sam_encoder(SamEncoderSpec.preset(size), 1024).state_dict()
        built = SamPath(Architecture(sam=SamEncoderSpec.preset(size)), 2).to("meta")
        features = built.encode(torch.empty(1, 3, 1024, 1024))
    assert features.shape == (1, SAM_SIZES[size].embed_dim, 64, 64)
    assert {key: tensor.shape for key, tensor in found.items()} == {
        key: tensor.shape for key, tensor in expected.items() if not key.startswith("neck.")
    }


def test_an_unknown_size_is_refused():
    with pytest.raises(ModelError, match="vit_b, vit_l, vit_h"):
        SamEncoderSpec.preset("vit_x")


def test_images_of_another_size_are_resized_bilinearly_first():
    built, x = model(), images(1, 100)
    resized = F.interpolate(x, (64, 64), mode="bilinear", align_corners=False)
    with torch.no_grad():
        torch.testing.assert_close(built(x), built(resized))


def test_each_encoder_sees_its_own_normalisation():
    built = model()
    seen = {}
    built.sam_encoder.register_forward_pre_hook(lambda _, args: seen.update(sam=args[0]))
    built.pathology_encoder.model.patch_embed.register_forward_pre_hook(lambda _, args: seen.update(vit=args[0]))
    x = images()
    with torch.no_grad():
        built(x)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    torch.testing.assert_close(seen["sam"], (x - mean) / std)
    torch.testing.assert_close(seen["vit"], x * 2 - 1)


def test_the_batched_decoder_equals_segment_anythings():
    decoder, prompt = model().mask_decoder, model().prompt
    features = torch.randn(3, 32, 4, 4)
    positions, dense = prompt(4, 4)
    with torch.no_grad():
        logits, iou = decoder(features, positions, dense)
        for i in range(3):
            expected = segment_anything.modeling.MaskDecoder.forward(
                decoder, features[i : i + 1], positions, torch.empty(1, 0, 32), dense.expand(1, 32, 4, 4), True
            )
            torch.testing.assert_close((logits[i : i + 1], iou[i : i + 1]), expected, rtol=1e-5, atol=1e-5)


def test_every_hypernetwork_can_begin_as_the_first():
    decoder = model().mask_decoder
    first, *others = decoder.output_hypernetworks_mlps
    assert not torch.equal(first.layers[0].weight, others[0].layers[0].weight)
    decoder.copy_first_hypernetwork()
    for mlp in others:
        for a, b in zip(first.parameters(), mlp.parameters(), strict=True):
            assert torch.equal(a, b)
            assert a.data_ptr() != b.data_ptr()


@pytest.mark.parametrize("how", ["autocast", "weights"])
def test_encoders_in_bfloat16_leave_neck_and_decoder_in_float32(how):
    built, x = model(), images()
    with torch.no_grad():
        expected = built(x)[0]
        if how == "weights":
            built.set_encoder_precision(torch.bfloat16)
            linear = built.sam_encoder.blocks[0].mlp.lin1
            seen: list[torch.dtype] = []
            linear.register_forward_hook(lambda _module, _args, output: seen.append(output.dtype))
            found = built(x)[0]
            assert seen == [linear.weight.dtype] == [torch.bfloat16]
            assert built.sam_encoder.blocks[0].norm1.weight.dtype == torch.float32
            assert {p.dtype for p in [*built.neck.parameters(), *built.mask_decoder.parameters()]} == {torch.float32}
        else:
            with torch.autocast("cpu", torch.bfloat16):
                found = built(x)[0]
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()


@given(st.integers(2, 7), st.integers(0, 2**31), st.booleans())
@settings(max_examples=40)
def test_labels_are_the_argmax_over_the_real_classes(channels, seed, ties):
    logits = torch.randn(2, channels, 5, 4, generator=torch.Generator().manual_seed(seed))
    if ties:
        logits = logits.round()
    labels = predict_labels(logits)
    assert labels.dtype == torch.uint8
    # numpy's argmax promises the first of several maxima.
    assert (labels.numpy() == logits[:, 1:].numpy().argmax(axis=1) + 1).all()


def test_labels_do_not_touch_the_logits_and_accept_gradients():
    logits = torch.randn(1, 4, 3, 3, requires_grad=True)
    before = logits.detach().clone()
    predict_labels(logits)
    assert torch.equal(logits.detach(), before)


def test_logits_are_upsampled_without_aligning_corners():
    logits = torch.tensor([[[[0.0, 4.0]]]])
    torch.testing.assert_close(upsample_logits(logits, (1, 4)), torch.tensor([[[[0.0, 1.0, 3.0, 4.0]]]]))


@pytest.mark.parametrize(
    "changes", [{"image_size": 65}, {"decoder_dim": 24}, {"sam": None, "pathology": None}], ids=str
)
def test_impossible_architectures_are_refused(changes):
    with pytest.raises(ValueError, match=r"multiple|needs"):
        Architecture(**{**architecture().model_dump(), **changes})
