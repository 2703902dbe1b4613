from __future__ import annotations

import pathlib
from pathlib import Path
from typing import Any

import pytest
import torch

from sampath_wsi.classes import TissueClass
from sampath_wsi.errors import ModelError
from sampath_wsi.model.bundle import load_bundle
from sampath_wsi.model.card import ModelCard
from sampath_wsi.model.pathology_encoder import interpolate_positions
from sampath_wsi.model.pretrained import convert_checkpoint

from .helpers import VARIANTS, authors_state, card, images, lightning_checkpoint, model

POSITIONS = "extra_encoder.model.pos_embed"


def template(folder: Path, variant: str, **changes: Any) -> Path:
    path = folder / "template.json"
    card(variant).model_copy(update=changes).write(path)
    return path


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_variant_converts(variant, tmp_path):
    built = model(variant)
    checkpoint = lightning_checkpoint(tmp_path / "last.ckpt", authors_state(built))
    written = convert_checkpoint(checkpoint, tmp_path / "out", template(tmp_path, variant))
    loaded = load_bundle(tmp_path / "out")
    assert loaded.card == written
    assert written.recipe["converted_from"] == "last.ckpt"
    with torch.no_grad():
        assert torch.equal(loaded.model(images())[0], built(images())[0])


def test_positions_are_interpolated(tmp_path):
    state = authors_state(model("both"))
    state[POSITIONS] = torch.randn(1, 1 + 14**2, 48)
    checkpoint = lightning_checkpoint(tmp_path / "last.ckpt", state)
    convert_checkpoint(checkpoint, tmp_path / "out", template(tmp_path, "both"))
    found = load_bundle(tmp_path / "out").model.pathology_encoder.model.pos_embed
    assert torch.equal(found, interpolate_positions(state[POSITIONS], 4, 1))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_bare_state_dict_without_lightnings_prefix(variant, tmp_path):
    built = model(variant)
    torch.save(authors_state(built), tmp_path / "state.pth")
    convert_checkpoint(tmp_path / "state.pth", tmp_path / "out", template(tmp_path, variant))
    converted = load_bundle(tmp_path / "out").model.state_dict()
    assert all(torch.equal(converted[key], tensor) for key, tensor in built.state_dict().items())


@pytest.mark.parametrize("variant", VARIANTS)
def test_another_variant_than_the_template_is_refused(variant, tmp_path):
    checkpoint = lightning_checkpoint(tmp_path / "last.ckpt", authors_state(model(variant)))
    for other in set(VARIANTS) - {variant}:
        with pytest.raises(ModelError, match=r"last\.ckpt: the checkpoint is a model with .* unlike 'tiny'"):
            convert_checkpoint(checkpoint, tmp_path / "out", template(tmp_path, other))
    assert not (tmp_path / "out").exists()


def test_other_classes_than_the_template_are_refused(tmp_path):
    checkpoint = lightning_checkpoint(tmp_path / "last.ckpt", authors_state(model()))
    two = (TissueClass(name="A", color=(0, 0, 0)), TissueClass(name="B", color=(1, 1, 1)))
    with pytest.raises(ModelError, match="has 3 classes, 'tiny' has 2"):
        convert_checkpoint(checkpoint, tmp_path / "out", template(tmp_path, "both", classes=two))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda s: s.pop("fusion_neck.1.bias"), r"1 missing \(neck.1.bias\)"),
        (lambda s: s.update({"model.odd": torch.ones(1)}), r"1 unexpected \(model.odd\)"),
        (lambda s: s.update({"fusion_neck.1.bias": torch.ones(3)}), r"neck.1.bias \(3,\) instead of \(32,\)"),
        (lambda s: s.update({POSITIONS: torch.ones(1, 16, 48)}), r"last\.ckpt: .*not a square grid"),
    ],
)
def test_wrong_keys_and_shapes_are_named(tmp_path, change, match):
    state = authors_state(model())
    change(state)
    checkpoint = lightning_checkpoint(tmp_path / "last.ckpt", state)
    with pytest.raises(ModelError, match=match) as error:
        convert_checkpoint(checkpoint, tmp_path / "out", template(tmp_path, "both"))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_foreign_objects_need_trust(tmp_path):
    foreign = {"callbacks": {"checkpoint": {"dirpath": pathlib.PurePosixPath("/runs")}}}
    checkpoint = lightning_checkpoint(tmp_path / "last.ckpt", authors_state(model()), **foreign)
    with pytest.raises(ModelError, match=r"pathlib\S*PurePosixPath.*--trust"):
        convert_checkpoint(checkpoint, tmp_path / "out", template(tmp_path, "both"))
    convert_checkpoint(checkpoint, tmp_path / "out", template(tmp_path, "both"), trust=True)
    with torch.no_grad():
        assert torch.equal(load_bundle(tmp_path / "out").model(images())[0], model()(images())[0])


def test_truncated_and_missing(tmp_path):
    checkpoint = lightning_checkpoint(tmp_path / "last.ckpt", authors_state(model()))
    checkpoint.write_bytes(checkpoint.read_bytes()[:5000])
    for path in (checkpoint, tmp_path / "none.ckpt"):
        with pytest.raises(ModelError, match=path.name):
            convert_checkpoint(path, tmp_path / "out", template(tmp_path, "both"))
    assert not (tmp_path / "out").exists()


def test_unknown_template(tmp_path):
    checkpoint = lightning_checkpoint(tmp_path / "last.ckpt", authors_state(model()))
    with pytest.raises(ModelError, match="card is missing"):
        convert_checkpoint(checkpoint, tmp_path / "out", "sampath-nothing")


def test_the_cards_scores_are_not_inherited_by_mistake(tmp_path):
    checkpoint = lightning_checkpoint(tmp_path / "last.ckpt", authors_state(model()))
    written = convert_checkpoint(checkpoint, tmp_path / "out", template(tmp_path, "both", scores={"dice": 0.9}))
    assert written.scores == {}
    assert ModelCard.read(tmp_path / "out" / "card.json") == written
