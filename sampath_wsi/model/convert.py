"""Converts the checkpoints of the authors' training code (PyTorch Lightning's ``.ckpt``) to bundles."""

from __future__ import annotations

from pathlib import Path

import torch

from sampath_wsi.errors import ModelError
from sampath_wsi.files import sha256 as sha256_of
from sampath_wsi.model.bundle import check_state, save_bundle
from sampath_wsi.model.card import Architecture, EncoderProvenance, ModelCard
from sampath_wsi.model.checkpoints import State, read_checkpoint, tensors_of, without_prefixes
from sampath_wsi.model.pathology_encoder import interpolate_positions
from sampath_wsi.model.sampath import SamPath, build_model
from sampath_wsi.model.templates import TEMPLATES, template_card

_NECKS = ("fusion_neck.", "extra_encoder.neck.")
_RENAMED = (
    ("model.mask_decoder.", "mask_decoder."),
    ("model.prompt_encoder.", "prompt."),
    ("extra_encoder.model.", "pathology_encoder.model."),
    *((neck, "neck.") for neck in _NECKS),
)
_UNUSED = (
    "model.prompt_encoder.point_embeddings.",
    "model.prompt_encoder.not_a_point_embed.",
    "model.prompt_encoder.mask_downscaling.",
)


def convert_checkpoint(
    checkpoint: str | Path, out: str | Path, template: str | Path, *, trust: bool = False
) -> ModelCard:
    """Convert a Lightning checkpoint of the authors' code to a bundle, its weights in float32 exactly as they are.

    Parameters
    ----------
    checkpoint
        The ``.ckpt``: SAM-Path, without the pathology encoder, or without SAM's encoder.
    out
        Folder of the bundle.
    template
        What the checkpoint does not say (classes, resolution, tile size): one of the paper's models by name, or the
        path of a card.
    trust
        Accept a checkpoint that holds other things than tensors and plain containers. They are left out, not run.

    Returns
    -------
    The card as written.

    Raises
    ------
    ModelError
        If the checkpoint cannot be read safely, or is another variant or has other classes than the template.
    """
    path = Path(checkpoint)
    record = read_checkpoint(path, trust=trust)
    state = tensors_of(record, path, "state_dict")
    if any(key.startswith("model.model.") for key in state):
        state = without_prefixes(state, "model.")
    card = template_card(str(template)) if str(template) in TEMPLATES else ModelCard.read(Path(template))
    _check_variant(state, card, path)
    model = model_from_authors_state(state, card, path)
    sha256 = sha256_of(path)
    converted = card.model_copy(
        update={
            "encoders": (EncoderProvenance(name=f"as trained in {path.name}", sha256=sha256, licence=card.licence),),
            "scores": {},
            "recipe": {"converted_from": path.name, "checkpoint_sha256": sha256},
        }
    )
    return save_bundle(out, model, converted, torch.float32)


def model_from_authors_state(state: State, card: ModelCard, source: Path) -> SamPath:
    """A model with the weights of a state dict that has the authors' keys.

    Raises
    ------
    ModelError
        If keys or shapes differ from the card's architecture; ``source`` is named.
    """
    with torch.device("meta"):
        model = build_model(card.architecture, len(card.classes), mean=card.mean, std=card.std)
    renamed = _renamed(state, card.architecture)
    positions = "pathology_encoder.model.pos_embed"
    if model.pathology_encoder is not None and positions in renamed:
        prefix_tokens = model.pathology_encoder.model.num_prefix_tokens
        renamed[positions] = interpolate_positions(renamed[positions], card.architecture.grid, prefix_tokens, source)
    check_state(renamed, model.state_dict(), f"{source}: the checkpoint does not fit '{card.name}'")
    model.load_state_dict({key: tensor.float() for key, tensor in renamed.items()}, assign=True)
    return model.eval()


def _renamed(state: State, architecture: Architecture) -> State:
    renamed = {}
    for key, tensor in state.items():
        new_key = _new_key(key, architecture)
        if new_key is not None:
            renamed[new_key] = tensor
    return renamed


def _new_key(key: str, architecture: Architecture) -> str | None:
    """The model's key for one of the authors', or None where the authors' code carries it without using it."""
    encoder = "model.image_encoder."
    if key.startswith(encoder + "neck."):
        # Only without a pathology encoder is SAM's own neck run.
        return "neck." + key.removeprefix(encoder + "neck.") if architecture.pathology is None else None
    if key.startswith(encoder):
        return "sam_encoder." + key.removeprefix(encoder) if architecture.sam is not None else None
    if key.startswith(_UNUSED):
        return None
    for old, new in _RENAMED:
        if key.startswith(old):
            return new + key.removeprefix(old)
    return key


def _check_variant(state: State, card: ModelCard, source: Path) -> None:
    fused, own_neck = (any(key.startswith(neck) for key in state) for neck in _NECKS)
    has_pathology, has_sam = fused or own_neck, not own_neck
    architecture = card.architecture
    if has_pathology != (architecture.pathology is not None) or has_sam != (architecture.sam is not None):
        parts = [name for name, there in (("SAM's encoder", has_sam), ("a pathology encoder", has_pathology)) if there]
        raise ModelError(
            f"{source}: the checkpoint is a model with {' and '.join(parts)} only, unlike '{card.name}'"
            if len(parts) == 1
            else f"{source}: the checkpoint is a model with {' and '.join(parts)}, unlike '{card.name}'",
            f"Choose another template: {', '.join(TEMPLATES)}.",
        )
    tokens = state.get("model.mask_decoder.mask_tokens.weight")
    if tokens is not None and len(tokens) != len(card.classes) + 2:
        raise ModelError(
            f"{source}: the checkpoint has {len(tokens) - 2} classes, '{card.name}' has {len(card.classes)}",
            "Choose the template of the data set it was trained on.",
        )
