"""The model against the outputs of the authors' published code, for stand-in weights, through the real path:
Lightning checkpoint -> conversion -> bundle -> loading."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import openslide
import pytest
import torch

from sampath_wsi.machine.memory import keep_freed_memory
from sampath_wsi.model.bundle import load_bundle
from sampath_wsi.model.checkpoints import under
from sampath_wsi.model.pathology_encoder import interpolate_positions
from sampath_wsi.model.pretrained import convert_checkpoint, load_pretrained
from sampath_wsi.model.sampath import SamPath, predict_labels, upsample_logits
from sampath_wsi.model.vanilla_sam import load_vanilla_sam
from sampath_wsi.model.zoo import TEMPLATES

pytestmark = pytest.mark.slow

CORNER_LEVEL0_PX = (600, 1100)
# The variants of one encoder first: the whole BCSS model has the same two, whose features of the image are kept.
MODELS = {
    "bcss_no_pathology": "sampath-bcss-no-pathology",
    "bcss_no_sam": "sampath-bcss-no-sam",
    "bcss": "sampath-bcss",
    "crag": "sampath-crag",
}


@pytest.fixture(scope="module")
def parity(shared_data: Path) -> ModuleType:
    """Makes the stand-in weights."""
    spec = importlib.util.spec_from_file_location("parity_weights", shared_data / "parity" / "weights.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def expected(shared_data: Path) -> Any:
    with np.load(shared_data / "parity" / "expected.npz") as arrays:
        yield arrays


def read_image(shared_data: Path, size_px: int) -> torch.Tensor:
    with openslide.OpenSlide(shared_data / "slides" / "CMU-1-Small-Region.svs") as slide:
        rgb = np.asarray(slide.read_region(CORNER_LEVEL0_PX, 0, (size_px, size_px)).convert("RGB"))
    return torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None].float() / 255


@pytest.fixture(scope="module")
def encoded() -> dict[str, tuple[torch.nn.Module, torch.Tensor]]:
    """The encoders of the BCSS variants with one encoder, and their features, as far as they were computed."""
    return {}


def features_of(model: SamPath, name: str, images: torch.Tensor, encoded: Any) -> torch.Tensor:
    """The model's features: from the variants' where all its encoders have the same weights as theirs."""
    encoders = {"sam": model.sam_encoder, "pathology": model.pathology_encoder}
    if name == "bcss" and encoded.keys() == encoders.keys():
        for key, (encoder, _) in encoded.items():
            state = encoders[key].state_dict()
            assert all(torch.equal(tensor, state[k]) for k, tensor in encoder.state_dict().items())
        return torch.cat([encoded[key][1] for key in encoders], dim=1)
    features = model.encode(images)
    present = [key for key, encoder in encoders.items() if encoder is not None]
    if name.startswith("bcss") and len(present) == 1:
        encoded[present[0]] = encoders[present[0]], features
    return features


@pytest.mark.parametrize("name", MODELS)
def test_outputs_are_the_authors(name, shared_data, parity, expected, encoded, tmp_path):
    checkpoint = tmp_path / "last.ckpt"
    parity.lightning_checkpoint(name, checkpoint)
    convert_checkpoint(checkpoint, tmp_path / "bundle", MODELS[name])
    checkpoint.unlink()
    keep_freed_memory()  # as stage 2 does: page faults would take half of the time
    bundle = load_bundle(tmp_path / "bundle")
    size_px = bundle.card.tile_px
    with torch.inference_mode():
        features = features_of(bundle.model, name, read_image(shared_data, size_px), encoded)
        logits, iou = bundle.model.decode(features)
        full = upsample_logits(logits, (size_px, size_px))
    assert np.abs(logits[0].numpy() - expected[f"{name}_low"]).max() <= 1e-3
    assert np.abs(iou[0].numpy() - expected[f"{name}_iou"]).max() <= 1e-3
    assert np.abs(full[0, :, size_px // 2].numpy() - expected[f"{name}_full_row"]).max() <= 1e-3
    assert (predict_labels(full)[0].numpy() == expected[f"{name}_labels"]).mean() >= 0.9999


def test_public_checkpoint_formats_fill_the_papers_model(parity, tmp_path):
    sam, hipt = tmp_path / "sam.pth", tmp_path / "hipt.pth"
    parity.sam_checkpoint(sam)
    parity.hipt_checkpoint(hipt)
    model = SamPath(TEMPLATES["sampath-bcss"].architecture, 5)
    assert [p.name for p in load_pretrained(model, sam=sam, pathology=hipt)] == ["sam.pth", "hipt.pth"]
    assert torch.equal(
        model.pathology_encoder.model.pos_embed,
        interpolate_positions(parity.tensor("pos_embed", (1, 197, 384)), 64, 1),
    )
    key = "image_encoder.blocks.11.attn.rel_pos_w"
    assert torch.equal(model.sam_encoder.blocks[11].attn.rel_pos_w, parity.tensor(key, (127, 64)))
    assert not load_vanilla_sam(sam).training


def test_trained_parameters_have_the_authors_shapes(shared_data):
    table = json.loads((shared_data / "parity" / "keys.json").read_text())["bcss"]
    with torch.device("meta"):
        model = SamPath(TEMPLATES["sampath-bcss"].architecture, 5)
    for ours, theirs in ((model.mask_decoder, "model.mask_decoder."), (model.neck, "fusion_neck.")):
        found = {key: list(tensor.shape) for key, tensor in ours.state_dict().items()}
        assert found == under(table, theirs)
