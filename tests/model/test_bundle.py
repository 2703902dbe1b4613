from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sampath_wsi.errors import ModelError
from sampath_wsi.model import zoo
from sampath_wsi.model.bundle import WEIGHTS_NAME, load_bundle, save_bundle
from sampath_wsi.model.card import CARD_NAME, ModelCard
from sampath_wsi.model.sampath import SamPath
from sampath_wsi.model.zoo import TEMPLATES, known_models, resolve_model

from .helpers import CLASSES, VARIANTS, card, images, model


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    save_bundle(tmp_path / "tiny", model(), card())
    return tmp_path / "tiny"


def refused(path: Path | str, match: str) -> None:
    with pytest.raises(ModelError, match=match) as error:
        load_bundle(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_saved_is_what_is_loaded(variant, tmp_path):
    built = model(variant)
    written = save_bundle(tmp_path, built, card(variant), torch.float32)
    loaded = load_bundle(tmp_path)
    assert loaded.card == written
    assert loaded.card.weights_sha256 == hashlib.sha256((tmp_path / WEIGHTS_NAME).read_bytes()).hexdigest()
    assert not loaded.model.training
    with torch.no_grad():
        assert torch.equal(loaded.model(images())[0], built(images())[0])


def test_half_precision_halves_the_file_and_keeps_the_result(bundle, tmp_path):
    save_bundle(tmp_path / "full", model(), card(), torch.float32)
    half, full = ((folder / WEIGHTS_NAME).stat().st_size for folder in (bundle, tmp_path / "full"))
    assert half < 0.6 * full
    with torch.no_grad():
        expected, found = model()(images())[0], load_bundle(bundle).model(images())[0]
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() < 0.01 * expected.abs().max()


def test_another_normalisation_travels_in_the_card(tmp_path):
    changed = card().model_copy(update={"mean": (0.7, 0.5, 0.6), "std": (0.1, 0.2, 0.3)})
    built = SamPath(changed.architecture, len(CLASSES), mean=changed.mean, std=changed.std)
    save_bundle(tmp_path, built, changed)
    assert load_bundle(tmp_path).model.mean.flatten().tolist() == pytest.approx([0.7, 0.5, 0.6])
    with pytest.raises(ModelError, match="another input mean"):
        save_bundle(tmp_path, built, card())


@pytest.mark.parametrize("length", [0, 7, 1000, -1])
def test_truncated_weights(bundle, length):
    weights = bundle / WEIGHTS_NAME
    weights.write_bytes(weights.read_bytes()[:length])
    refused(bundle, f"{WEIGHTS_NAME}: truncated or altered")
    # Also where an older card does not say what the weights' hash is.
    record = json.loads((bundle / CARD_NAME).read_text())
    (bundle / CARD_NAME).write_text(json.dumps({**record, "weights_sha256": None}))
    refused(bundle, f"{WEIGHTS_NAME}: not a whole safetensors file")


def test_one_flipped_bit(bundle):
    weights = bundle / WEIGHTS_NAME
    data = bytearray(weights.read_bytes())
    data[-100] ^= 1
    weights.write_bytes(data)
    refused(bundle, "truncated or altered")


@pytest.mark.parametrize(
    ("name", "match"), [(WEIGHTS_NAME, "the model's weights are missing"), (CARD_NAME, "no card.json")]
)
def test_a_missing_file(bundle, name, match):
    (bundle / name).unlink()
    refused(bundle, match)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda text: "not json", "not a valid model card: the file: Invalid JSON"),
        (lambda text: text[: len(text) // 2], "Invalid JSON"),
        (lambda text: text.replace('"mpp"', '"resolution"'), "not a valid model card: mpp: Field required"),
        (lambda text: text.replace('"mpp": 0.5', '"mpp": 0'), "mpp: Input should be greater than"),
        (lambda text: text.replace('"heads": 2', '"heads": 5'), "architecture.sam: .*not a multiple of heads 5"),
        (lambda text: text.replace('"tile_px": 128', '"tile_px": 100'), "tile_px 100 is not a multiple"),
        (lambda text: text.replace('"overlap_px": 32', '"overlap_px": 33'), "overlap_px 33"),
        (lambda text: text.replace('"name": "B"', '"name": "A"'), "two classes have the same name"),
        (lambda text: text.replace('"format_version": 1', '"format_version": 9'), "format_version"),
    ],
)
def test_a_card_that_is_wrong(bundle, change, match):
    path = bundle / CARD_NAME
    path.write_text(change(path.read_text()))
    refused(bundle, match)


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ('"embed_dim": 32', '"embed_dim": 64', r"misshapen \(sam_encoder.pos_embed \(1, 4, 4, 32\) instead of"),
        ('"depth": 2', '"depth": 3', r"14 missing \(sam_encoder.blocks.2"),
        ('"depth": 2', '"depth": 1', "global_blocks"),
        ('"decoder_dim": 32', '"decoder_dim": 48', "neck.0.weight"),
        ('"vit_tiny_patch16_224"', '"vit_of_nobody"', "timm has no model"),
    ],
)
def test_an_architecture_that_the_weights_do_not_fit(bundle, old, new, match):
    path = bundle / CARD_NAME
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    refused(bundle, match)


def test_other_classes_than_the_weights(bundle):
    record = json.loads((bundle / CARD_NAME).read_text())
    record["classes"].append({"name": "D", "color": [1, 2, 3]})
    (bundle / CARD_NAME).write_text(json.dumps(record))
    refused(bundle, "mask_tokens.weight")


def test_weights_that_fp16_cannot_hold_are_not_written(tmp_path):
    built = model()
    torch.nn.init.constant_(built.neck[0].weight, 1e30)
    with pytest.raises(ModelError, match=re.escape("'neck.0.weight' is not finite as torch.float16")):
        save_bundle(tmp_path / "new", built, card())
    assert not (tmp_path / "new").exists()
    save_bundle(tmp_path / "new", built, card(), torch.float32)


def test_a_card_of_another_model_is_not_written(tmp_path):
    with pytest.raises(ModelError, match="describes another model"):
        save_bundle(tmp_path, model("sam"), card("both"))


def test_the_file_holds_only_what_runs(bundle):
    keys = load_file(bundle / WEIGHTS_NAME)
    assert {key.split(".")[0] for key in keys} == {"sam_encoder", "pathology_encoder", "neck", "prompt", "mask_decoder"}
    assert not any("sam_encoder.neck" in key for key in keys)
    assert keys["prompt.pe_layer.positional_encoding_gaussian_matrix"].dtype == torch.float32


def test_unexpected_weights(bundle):
    weights = bundle / WEIGHTS_NAME
    save_file({**load_file(weights), "extra": torch.zeros(1)}, weights)
    record = json.loads((bundle / CARD_NAME).read_text())
    (bundle / CARD_NAME).write_text(json.dumps({**record, "weights_sha256": None}))
    refused(bundle, r"1 unexpected \(extra\)")


class TestNames:
    @pytest.fixture(autouse=True)
    def folders(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(zoo, "ZOO_DIR", tmp_path / "zoo")
        monkeypatch.setenv(zoo.CACHE_VARIABLE, str(tmp_path / "cache"))
        for folder in ("zoo/shipped", "cache/models/own", "cache/models/sampath-crag"):
            (tmp_path / folder).mkdir(parents=True)
            card().write(tmp_path / folder / CARD_NAME)

    def test_names_and_paths(self, tmp_path):
        assert resolve_model("shipped") == tmp_path / "zoo/shipped"
        assert resolve_model("own") == tmp_path / "cache/models/own"
        assert resolve_model("sampath-crag") == tmp_path / "cache/models/sampath-crag"
        assert resolve_model(tmp_path / "zoo/shipped") == tmp_path / "zoo/shipped"
        assert resolve_model(str(tmp_path / "zoo/shipped/card.json")) == tmp_path / "zoo/shipped"
        assert set(known_models()) == {"shipped", "own", *TEMPLATES}

    def test_a_model_of_the_paper_says_how_to_get_it(self, tmp_path):
        with pytest.raises(ModelError, match=f"model convert CHECKPOINT {tmp_path}/cache/models/sampath-bcss"):
            resolve_model("sampath-bcss")

    def test_what_does_not_exist(self, tmp_path):
        with pytest.raises(ModelError, match=r"there is no model 'nothing'.*own, sampath-bcss.*shipped"):
            resolve_model("nothing")
        with pytest.raises(ModelError, match=r"holds no card\.json"):
            resolve_model(tmp_path)


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_are_cards(name, tmp_path):
    template = TEMPLATES[name]
    assert template.name == name
    template.write(tmp_path / CARD_NAME)
    assert ModelCard.read(tmp_path / CARD_NAME) == template
    assert template.output_stride == (4 if "bcss" in name else 6)
