"""The public SAM of any size, built again from the shapes in its checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sampath_wsi.errors import ModelError
from sampath_wsi.model.card import SAM_SIZES, Architecture
from sampath_wsi.model.libraries import segment_anything
from sampath_wsi.model.pretrained import load_pretrained
from sampath_wsi.model.sampath import SamPath
from sampath_wsi.model.vanilla_sam import build_vanilla_sam, load_vanilla_sam, sam_spec_of
from sampath_wsi.synthetic.stand_ins import (
    TINY_HIPT,
    TINY_SAM,
    TINY_SAM_IMAGE_PX,
    write_tiny_encoder,
)

from .helpers import SAM, small_sam


@pytest.mark.parametrize("size", SAM_SIZES)
def test_public_sizes_are_recognised_as_segment_anythings(size: str) -> None:
    with torch.device("meta"):
        state = segment_anything.sam_model_registry[size]().state_dict()
        built = build_vanilla_sam(SAM_SIZES[size]).state_dict()
    assert sam_spec_of(state, "x") == (SAM_SIZES[size], 1024)
    assert {key: tensor.shape for key, tensor in state.items()} == {key: t.shape for key, t in built.items()}


def test_a_checkpoint_gives_what_segment_anything_gives(tmp_path: Path) -> None:
    sam = small_sam()
    torch.save(sam.state_dict(), tmp_path / "sam.pth")
    assert sam_spec_of(sam.state_dict(), "x") == (SAM, 64)
    loaded = load_vanilla_sam(tmp_path / "sam.pth")
    assert not loaded.training
    image = np.random.default_rng(0).integers(0, 255, (50, 70, 3), dtype=np.uint8)
    results = []
    for model in (sam, loaded):
        predictor = segment_anything.SamPredictor(model)
        predictor.set_image(image)
        results.append(predictor.predict(np.array([[30, 20]]), np.array([1]))[1:])
    for found, expected in zip(*results, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_what_is_no_sam_is_named(tmp_path: Path) -> None:
    state = small_sam().state_dict()
    path = tmp_path / "sam.pth"
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(ModelError, match=r"sam\.pth: not the weights of a SAM"):
        load_vanilla_sam(path)
    torch.save({key: tensor for key, tensor in state.items() if "iou_token" not in key}, path)
    with pytest.raises(ModelError, match=r"sam\.pth: not the weights of a SAM: 1 missing \(mask_decoder\.iou_token"):
        load_vanilla_sam(path)
    with pytest.raises(ModelError, match="no such encoder weights"):
        load_vanilla_sam(tmp_path / "nowhere.pth")


def test_tiny_checkpoints_are_read_as_the_public_ones_are(tmp_path: Path) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    for name in ("a", "b"):
        write_tiny_encoder("sam", tmp_path / f"{name}.pth", seed=3)
        write_tiny_encoder("hipt", tmp_path / f"{name}_hipt.pth", seed=3)
    assert torch.equal(before, torch.random.get_rng_state())
    assert load_vanilla_sam(tmp_path / "a.pth").image_encoder.img_size == TINY_SAM_IMAGE_PX
    models = []
    for name in ("a", "b"):
        torch.manual_seed(1)
        architecture = Architecture(image_size=64, sam=TINY_SAM, pathology=TINY_HIPT)
        model = SamPath(architecture, 2)
        load_pretrained(model, sam=tmp_path / f"{name}.pth", pathology=tmp_path / f"{name}_hipt.pth")
        models.append(model.state_dict())
    assert all(torch.equal(models[0][key], models[1][key]) for key in models[0])
    write_tiny_encoder("sam", tmp_path / "b.pth", seed=4)
    states = [torch.load(tmp_path / f"{name}.pth", weights_only=True) for name in ("a", "b")]
    assert not torch.equal(*(state["image_encoder.neck.0.weight"] for state in states))
