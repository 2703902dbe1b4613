from __future__ import annotations

import argparse
import collections
import datetime
import functools
import pathlib
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from sampath_wsi.errors import ModelError
from sampath_wsi.files import sha256
from sampath_wsi.model.card import PathologyEncoderSpec, SamEncoderSpec
from sampath_wsi.model.checkpoints import read_checkpoint, tensors_of
from sampath_wsi.model.pathology_encoder import interpolate_positions
from sampath_wsi.model.pretrained import default_encoders, load_pretrained, read_pathology_state
from sampath_wsi.model.zoo import TEMPLATES

from .helpers import architecture, images, model, small_sam

executed: list[str] = []


def run_something(what: str) -> str:
    executed.append(what)
    return what


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return run_something, ("hostile",)


class Settings(dict[str, Any]):
    pass


def refused(path: Path, match: str, **options: Any) -> None:
    with pytest.raises(ModelError, match=match) as error:
        read_checkpoint(path, **options)
    assert "\n" not in str(error.value)


def save(path: Path, record: object) -> Path:
    torch.save(record, path)
    return path


class TestReading:
    @pytest.mark.parametrize("suffix", ["pth", "safetensors"])
    def test_plain_tensors(self, tmp_path, suffix):
        path = tmp_path / f"w.{suffix}"
        (save_file if suffix == "safetensors" else torch.save)({"a": torch.ones(2)}, path)
        assert torch.equal(tensors_of(read_checkpoint(path), path)["a"], torch.ones(2))

    def test_the_old_format_of_torch(self, tmp_path):
        torch.save({"a": torch.ones(2)}, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
        assert torch.equal(read_checkpoint(tmp_path / "w.pth")["a"], torch.ones(2))

    @pytest.mark.parametrize("old_format", [False, True])
    @pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.99])
    def test_truncated(self, tmp_path, kept, old_format):
        path = tmp_path / "w.pth"
        torch.save({"a": torch.randn(5000)}, path, _use_new_zipfile_serialization=not old_format)
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * kept)])
        refused(path, "w.pth: cannot be read as a checkpoint, it may be truncated")
        refused(path, "w.pth: cannot be read as a checkpoint", trust=True)

    @pytest.mark.parametrize("content", [b"hello", b"<html>not found</html>", b"PK\x03\x04 nothing"])
    def test_something_else(self, tmp_path, content):
        for name in ("w.pth", "w.safetensors"):
            (tmp_path / name).write_bytes(content)
            refused(tmp_path / name, "cannot be read as a checkpoint")

    def test_missing_or_a_folder(self, tmp_path):
        refused(tmp_path / "w.pth", "there is no such checkpoint")
        refused(tmp_path, "there is no such checkpoint")

    def test_code_is_never_run(self, tmp_path):
        path = save(tmp_path / "w.ckpt", {"state_dict": {"a": torch.ones(1)}, "x": Hostile()})
        refused(path, r"more than tensors and plain containers: \S*run_something")
        record = read_checkpoint(path, trust=True)
        assert torch.equal(record["state_dict"]["a"], torch.ones(1))
        assert executed == []

    def test_everything_foreign_is_named_and_left_out(self, tmp_path, caplog):
        foreign = {
            "settings": Settings(lr=0.1),
            "path": pathlib.PurePosixPath("/x"),
            "day": datetime.date(2023, 7, 1),
            "bound": [torch.nn.Linear(2, 2)],
            "partial": functools.partial(int, base=2),
            "queue": collections.deque([1, 2]),
            "namespace": argparse.Namespace(a=1),
            "keyed": {pathlib.PurePosixPath("/k"): 1},
        }
        state = collections.OrderedDict(a=torch.arange(3.0), b=torch.nn.Parameter(torch.ones(2)))
        path = save(tmp_path / "w.ckpt", {"epoch": 3, "state_dict": state, **foreign})
        with pytest.raises(ModelError) as error:
            read_checkpoint(path)
        for name in ("Settings", "PurePosixPath", "datetime.date", "Linear", "functools.partial", "argparse.Namespace"):
            assert name in str(error.value)
        record = read_checkpoint(path, trust=True)
        assert "functools.partial" in caplog.text
        assert record["epoch"] == 3
        assert torch.equal(tensors_of(record, path, "state_dict")["a"], torch.arange(3.0))

    def test_an_allowed_class_is_allowed_only_there(self, tmp_path):
        path = save(tmp_path / "w.pth", {"teacher": {}, "args": argparse.Namespace(a=1)})
        assert read_checkpoint(path, allowed=[argparse.Namespace])["args"].a == 1
        refused(path, "argparse.Namespace")

    @pytest.mark.parametrize("record", [torch.ones(2), [1], {}, {"state_dict": {}}, {"a": 1}])
    def test_what_holds_no_weights(self, tmp_path, record):
        path = save(tmp_path / "w.pth", record)
        with pytest.raises(ModelError, match="not the weights of a model"):
            tensors_of(read_checkpoint(path), path, "state_dict")


class TestSam:
    @pytest.fixture
    def sam(self, tmp_path: Path) -> tuple[Path, dict[str, torch.Tensor]]:
        state = small_sam().state_dict()
        return save(tmp_path / "sam.pth", state), state

    @pytest.mark.parametrize("variant", ["both", "sam", "pathology"])
    def test_its_parts_are_taken_over(self, sam, variant):
        path, state = sam
        built = model(variant, decoder_dim=256)
        new = {k: v.clone() for k, v in built.state_dict().items() if "mask_tokens" in k or "head.layers.2" in k}
        (provenance,) = load_pretrained(built, sam=path)
        assert (provenance.name, provenance.sha256) == ("sam.pth", sha256(path))
        loaded = built.state_dict()
        for key, tensor in loaded.items():
            if key in new:
                assert torch.equal(tensor, new[key]), key
            elif key.startswith("sam_encoder."):
                assert torch.equal(tensor, state["image_encoder." + key.removeprefix("sam_encoder.")]), key
            elif key.startswith("mask_decoder.output_hypernetworks_mlps."):
                mlp, _, rest = key.removeprefix("mask_decoder.output_hypernetworks_mlps.").partition(".")
                assert torch.equal(tensor, state[f"mask_decoder.output_hypernetworks_mlps.0.{rest}"]), mlp
            elif key.startswith("mask_decoder."):
                assert torch.equal(tensor, state[key]), key
            elif key.startswith("prompt."):
                assert torch.equal(tensor, state["prompt_encoder." + key.removeprefix("prompt.")]), key
            elif key.startswith("neck.") and variant == "sam":
                assert torch.equal(tensor, state["image_encoder." + key]), key

    def test_features_equal_segment_anythings(self, sam):
        path, state = sam
        built, reference = model("sam", decoder_dim=256), small_sam()
        reference.load_state_dict(state)
        load_pretrained(built, sam=path)
        x = images(1)
        with torch.no_grad():
            expected = reference.image_encoder((x - built.mean) / built.std)
            torch.testing.assert_close(built.neck(built.encode(x)), expected, rtol=1e-4, atol=1e-5)

    def test_another_image_size_resizes_the_positions(self, sam):
        path, state = sam
        state["image_encoder.pos_embed"] = torch.arange(4.0).view(1, 4, 1, 1).expand(1, 4, 4, 32).contiguous()
        state["image_encoder.blocks.1.attn.rel_pos_h"] = torch.arange(7.0).view(7, 1).expand(7, 16).contiguous()
        torch.save(state, path)
        built = model("both", image_size=128)
        before = {key: tensor.clone() for key, tensor in built.mask_decoder.state_dict().items()}
        load_pretrained(built, sam=path)
        positions = built.sam_encoder.pos_embed.detach()
        assert positions.shape == (1, 8, 8, 32)
        # A ramp from 0 to 3 keeps its direction and its symmetry about 1.5.
        assert (positions[0].diff(dim=0) > 0).all()
        assert torch.allclose(positions + positions.flip(1), torch.tensor(3.0), atol=1e-4)
        relative = built.sam_encoder.blocks[1].attn.rel_pos_h.detach()
        assert relative.shape == (15, 16)
        assert torch.allclose(relative[1:-1].diff(dim=0), torch.tensor(7 / 15), atol=1e-4)
        # A decoder of another width than SAM's starts fresh.
        assert all(torch.equal(tensor, before[key]) for key, tensor in built.mask_decoder.state_dict().items())

    @pytest.mark.parametrize(
        ("change", "match"),
        [
            (lambda s: s.pop("image_encoder.blocks.1.attn.qkv.bias"), r"1 missing \(blocks.1.attn.qkv.bias\)"),
            (lambda s: s.update({"image_encoder.odd": torch.ones(1)}), r"1 unexpected \(odd\)"),
            (lambda s: s.update({"image_encoder.patch_embed.proj.bias": torch.ones(7)}), r"\(7,\) instead of \(32,\)"),
            (lambda s: s.pop("mask_decoder.iou_token.weight"), "missing .iou_token"),
            (lambda s: s.pop("prompt_encoder.no_mask_embed.weight"), "missing .no_mask_embed"),
            (lambda s: s.pop("image_encoder.neck.0.weight"), "SAM's neck does not fit"),
        ],
    )
    def test_wrong_keys_and_shapes_are_named(self, tmp_path, change, match):
        state = small_sam().state_dict()
        change(state)
        path = save(tmp_path / "sam.pth", state)
        with pytest.raises(ModelError, match=f"sam.pth: .*{match}"):
            load_pretrained(model("sam", decoder_dim=256), sam=path)


class TestPathology:
    def checkpoint(self, path: Path, state: dict[str, torch.Tensor]) -> Path:
        """A file like HIPT's: DINO's teacher with its head, and the arguments as a Namespace."""
        teacher = {"backbone." + key: tensor for key, tensor in state.items()}
        teacher |= {"head.last_layer.weight_v": torch.ones(3, 3)}
        student = {"module." + key: torch.zeros_like(tensor) for key, tensor in teacher.items()}
        record = {"student": student, "teacher": teacher, "epoch": 1, "args": argparse.Namespace(arch="vit_small")}
        return save(path, record)

    def test_hipts_format(self, tmp_path):
        source = model("pathology", image_size=224, seed=5).pathology_encoder.model.state_dict()
        path = self.checkpoint(tmp_path / "vit.pth", source)
        built = model("both")
        (provenance,) = load_pretrained(built, pathology=path)
        assert provenance.name == "vit.pth"
        loaded = built.pathology_encoder.model.state_dict()
        assert torch.equal(loaded.pop("pos_embed"), interpolate_positions(source["pos_embed"], 4, 1))
        for key, tensor in loaded.items():
            assert torch.equal(tensor, source[key]), key

    def test_a_plain_state_dict_with_prefixes(self, tmp_path):
        source = model("pathology").pathology_encoder.model.state_dict()
        path = save(tmp_path / "vit.pth", {"module.backbone." + key: tensor for key, tensor in source.items()})
        assert read_pathology_state(path).keys() == source.keys()

    def test_registers_without_positions(self, tmp_path):
        spec = PathologyEncoderSpec(
            name="vit_small_patch14_reg4_dinov2", kwargs={"embed_dim": 48, "depth": 1, "num_heads": 3}
        )
        from sampath_wsi.model.pathology_encoder import PathologyEncoder

        source = PathologyEncoder(spec, 8).model.state_dict()
        built = model("pathology")
        built.pathology_encoder = PathologyEncoder(spec, 4)
        path = save(tmp_path / "vit.pth", source)
        load_pretrained(built, pathology=path)
        expected = interpolate_positions(source["pos_embed"], 4, 0)
        assert torch.equal(built.pathology_encoder.model.pos_embed, expected)

    def test_wrong_keys_are_named(self, tmp_path):
        source = model("pathology").pathology_encoder.model.state_dict()
        del source["norm.bias"]
        path = self.checkpoint(tmp_path / "vit.pth", source)
        with pytest.raises(ModelError, match=r"vit.pth: not the weights .*1 missing \(norm.bias\)"):
            load_pretrained(model(), pathology=path)

    def test_no_encoder_to_load_into(self, tmp_path):
        with pytest.raises(ModelError, match="no pathology encoder"):
            load_pretrained(model("sam"), pathology=tmp_path)


def test_public_weights_by_architecture():
    assert default_encoders(TEMPLATES["sampath-bcss"].architecture) == ("sam_vit_b", "hipt_vit_small")
    assert default_encoders(TEMPLATES["sampath-bcss-no-sam"].architecture) == ("sam_vit_b", "hipt_vit_small")
    assert default_encoders(TEMPLATES["sampath-crag-no-pathology"].architecture) == ("sam_vit_b", None)
    huge = TEMPLATES["sampath-bcss"].architecture.model_copy(update={"sam": SamEncoderSpec.preset("vit_h")})
    assert default_encoders(huge) == ("sam_vit_h", "hipt_vit_small")
    assert default_encoders(architecture()) == (None, None)
