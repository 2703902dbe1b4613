"""Training from the weights of pretrained encoders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sampath_wsi.errors import ConfigError, ModelError
from sampath_wsi.files import sha256
from sampath_wsi.model.bundle import load_bundle, save_bundle
from sampath_wsi.model.sampath import SamPath
from sampath_wsi.training.recipe import read_recipe
from sampath_wsi.training.weights import begin_model
from tests.model.helpers import architecture, card, small_sam
from tests.model.helpers import model as small_model
from tests.training.loop.runs import run_training, write_halves, write_recipe


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Stand-ins of the public files, and a recipe of the architecture that they fit."""
    folder = tmp_path_factory.mktemp("weights")
    torch.save(small_sam().state_dict(), folder / "sam.pth")
    torch.manual_seed(5)
    vit = SamPath(architecture(decoder_dim=256), 2).pathology_encoder
    assert vit is not None
    teacher = {f"module.backbone.{key}": tensor for key, tensor in vit.model.state_dict().items()}
    torch.save({"teacher": teacher}, folder / "vit.pth")
    return {
        "architecture": architecture(decoder_dim=256).model_dump(mode="json"),
        "pretrained": {"sam": str(folder / "sam.pth"), "pathology": str(folder / "vit.pth")},
        "freeze_encoders": True,
    }


def test_encoders_come_from_the_files_and_the_card_says_so(weights: dict[str, Any], tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, **weights, epochs=1)
    trained = run_training(recipe, write_halves(tmp_path / "data"), tmp_path / "run")
    bundle = load_bundle(trained)
    sam = torch.load(weights["pretrained"]["sam"], weights_only=True)
    for key, tensor in bundle.model.sam_encoder.state_dict().items():
        torch.testing.assert_close(tensor, sam[f"image_encoder.{key}"].half().float(), rtol=0, atol=0)
    assert [(e.name, e.sha256) for e in bundle.card.encoders] == [
        (name, sha256(Path(weights["pretrained"][key]))) for key, name in (("sam", "sam.pth"), ("pathology", "vit.pth"))
    ]
    # A run that starts from this model knows where its encoders come from.
    again = write_recipe(tmp_path / "again", **weights | {"pretrained": None}, start_from=str(trained))
    assert begin_model(read_recipe(again), ("Bright", "Dark"))[1] == bundle.card.encoders


def test_an_ablation_takes_the_weights_that_it_has_use_for(weights: dict[str, Any], tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, **weights)
    without_pathology = read_recipe(recipe, ["architecture.pathology=null"])
    assert [e.name for e in begin_model(without_pathology, ("Bright", "Dark"))[1]] == ["sam.pth"]
    without_sam = read_recipe(recipe, ["architecture.sam=null"])
    assert [e.name for e in begin_model(without_sam, ("Bright", "Dark"))[1]] == ["sam.pth", "vit.pth"]


def test_weights_that_cannot_be_had_are_named(
    weights: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe(tmp_path, **weights)
    with pytest.raises(ModelError, match=r"nowhere\.pth: there are no such encoder weights"):
        begin_model(read_recipe(recipe, ["pretrained.sam=nowhere.pth"]), ("Bright", "Dark"))
    with pytest.raises(ConfigError, match=r"pretrained\.sam: no public weights fit this architecture"):
        begin_model(read_recipe(recipe, ["pretrained.sam=auto"]), ("Bright", "Dark"))
    wanted: list[Any] = []
    monkeypatch.setattr(
        "sampath_wsi.training.weights.load_pretrained", lambda model, **which: wanted.append(which) or ()
    )
    monkeypatch.setattr("sampath_wsi.training.weights.SamPath", lambda *_, **__: SamPath(architecture(), 5))
    path = Path(__file__).resolve().parents[3] / "config" / "experiments" / "bcss.yaml"
    for override, pathology in (("seed=0", "hipt_vit_small"), ("architecture.pathology=null", None)):
        begin_model(read_recipe(path, [override]), "abcde")
        assert wanted.pop() == {"sam": "sam_vit_b", "pathology": pathology, "trust": False}


def test_another_models_classes_are_taken_over_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It has the classes A, B and C; rows 0 and 1 of the decoder are of no class."""
    old = small_model(seed=3)
    save_bundle(tmp_path / "old", old, card(), dtype=torch.float32)
    spelled_out = architecture().model_dump(mode="json")
    recipe = write_recipe(tmp_path, start_from=str(tmp_path / "old"), architecture=spelled_out)
    caplog.set_level("INFO")
    new, _ = begin_model(read_recipe(recipe), ("C", "Gland", "A", "Vessel"))
    assert "the model begins with tiny; classes new to it: Gland, Vessel" in caplog.text
    before, after = old.state_dict(), new.state_dict()
    for key, tensor in before.items():
        if tensor.shape == after[key].shape and "mlps" not in key:
            assert torch.equal(tensor, after[key]), key
    for place, origin in {0: 0, 1: 1, 2: 4, 4: 2}.items():
        for key in ("mask_tokens.weight", "iou_prediction_head.layers.2.weight", "iou_prediction_head.layers.2.bias"):
            assert torch.equal(after[f"mask_decoder.{key}"][place], before[f"mask_decoder.{key}"][origin])
        ours, theirs = (m.mask_decoder.output_hypernetworks_mlps for m in (new, old))
        for key, tensor in ours[place].state_dict().items():
            assert torch.equal(tensor, theirs[origin].state_dict()[key])
    tokens = after["mask_decoder.mask_tokens.weight"]
    assert not any(
        torch.equal(tokens[place], row) for place in (3, 5) for row in before["mask_decoder.mask_tokens.weight"]
    )
