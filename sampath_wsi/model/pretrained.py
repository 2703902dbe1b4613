"""Weights of others: the public encoders that training starts from, and the checkpoints of the authors' code."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from sampath_wsi.errors import ModelError
from sampath_wsi.files import sha256 as sha256_of
from sampath_wsi.model.bundle import check_state, save_bundle
from sampath_wsi.model.card import SAM_SIZES, Architecture, EncoderProvenance, ModelCard, PathologyEncoderSpec
from sampath_wsi.model.checkpoints import State, read_checkpoint, tensors_of, under, without_prefixes
from sampath_wsi.model.pathology_encoder import PathologyEncoder, interpolate_positions
from sampath_wsi.model.sam_encoder import resize_sam_positions
from sampath_wsi.model.sampath import SamPath
from sampath_wsi.model.zoo import ENCODERS, TEMPLATES, find_encoder

SAM_DECODER_DIM = 256
_NEW_IN_DECODER = ("mask_tokens.", "output_hypernetworks_mlps.", "iou_prediction_head.layers.2.")
_USED_OF_PROMPT = ("pe_layer.", "no_mask_embed.")


def default_encoders(architecture: Architecture) -> tuple[str | None, str | None]:
    """Return the names of the public weights that fit an architecture: (SAM, pathology); None where none are known.

    Without SAM's encoder the decoder still starts from SAM ViT-B.
    """
    wanted = architecture.sam or SAM_SIZES["vit_b"]
    sam = next((f"sam_{size}" for size, spec in SAM_SIZES.items() if spec == wanted), None)
    return sam, "hipt_vit_small" if architecture.pathology == PathologyEncoderSpec.hipt() else None


def load_pretrained(
    model: SamPath, *, sam: str | Path | None = None, pathology: str | Path | None = None, trust: bool = False
) -> tuple[EncoderProvenance, ...]:
    """Load public weights into a model: encoders, and SAM's decoder where the model's has SAM's width.

    As in the authors' code, the class tokens and the last layer of the IoU head stay new, and the hypernetwork of
    every class begins as a copy of SAM's first. Position embeddings are fitted to the model's image size.

    Parameters
    ----------
    sam
        SAM's checkpoint: a path or a name in :data:`sampath_wsi.model.zoo.ENCODERS`; None leaves SAM's parts fresh.
    pathology
        The pathology encoder's checkpoint, likewise.
    trust
        Accept checkpoints that hold other things than weights; these are left out, not run.

    Returns
    -------
    Provenance for the model's card.

    Raises
    ------
    ModelError
        If a file cannot be had, read, or does not fit the model.
    """
    provenance = []
    if sam is not None:
        path = find_encoder(sam)
        _load_sam(model, tensors_of(read_checkpoint(path, trust=trust), path, "model", "state_dict"), path)
        provenance.append(_provenance(sam, path))
    if pathology is not None:
        if model.pathology_encoder is None:
            raise ModelError("the model has no pathology encoder to load weights into", "Leave its weights out.")
        path = find_encoder(pathology)
        _load_pathology(model.pathology_encoder, read_pathology_state(path, trust=trust), path)
        provenance.append(_provenance(pathology, path))
    return tuple(provenance)


def read_pathology_state(path: Path, *, trust: bool = False) -> State:
    """Read the backbone of a checkpoint in DINO's format (``teacher``, as HIPT's) or of a plain state dict.

    Raises
    ------
    ModelError
        If the file cannot be read safely or holds no weights.
    """
    record = read_checkpoint(path, allowed=[argparse.Namespace], trust=trust)
    state = without_prefixes(tensors_of(record, path, "teacher", "model", "state_dict"), "module.", "backbone.")
    return {key: tensor for key, tensor in state.items() if not key.startswith("head.")}


def _load_pathology(encoder: PathologyEncoder, state: State, source: Path) -> None:
    vit = encoder.model
    if "pos_embed" in state:
        prefix_tokens = 0 if vit.no_embed_class else vit.num_prefix_tokens
        state = {**state, "pos_embed": interpolate_positions(state["pos_embed"], encoder.grid, prefix_tokens, source)}
    check_state(state, vit.state_dict(), f"{source}: not the weights of the pathology encoder")
    vit.load_state_dict(state)


def _load_sam(model: SamPath, state: State, source: Path) -> None:
    if model.sam_encoder is not None:
        encoder = under(state, "image_encoder.")
        neck = under(encoder, "neck.")
        expected = model.sam_encoder.state_dict()
        encoder = resize_sam_positions(_without(encoder, "neck."), expected)
        check_state(encoder, expected, f"{source}: not the weights of the SAM encoder")
        model.sam_encoder.load_state_dict(encoder)
        if model.pathology_encoder is None:
            check_state(neck, model.neck.state_dict(), f"{source}: SAM's neck does not fit the model")
            model.neck.load_state_dict(neck)
    if model.architecture.decoder_dim == SAM_DECODER_DIM:
        _load_sam_decoder(model, state, f"{source}: not a SAM checkpoint")


def _load_sam_decoder(model: SamPath, state: State, what: str) -> None:
    decoder, own = under(state, "mask_decoder."), model.mask_decoder.state_dict()
    prompt = {key: x for key, x in under(state, "prompt_encoder.").items() if key.startswith(_USED_OF_PROMPT)}
    first = "output_hypernetworks_mlps.0."
    kept, hypernetwork = _without(decoder, *_NEW_IN_DECODER), under(decoder, first)
    check_state(kept, _without(own, *_NEW_IN_DECODER), what)
    check_state(hypernetwork, under(own, first), what)
    check_state(prompt, model.prompt.state_dict(), what)
    model.prompt.load_state_dict(prompt)
    model.mask_decoder.load_state_dict(kept, strict=False)
    model.mask_decoder.output_hypernetworks_mlps[0].load_state_dict(hypernetwork)
    model.mask_decoder.copy_first_hypernetwork()


def _without(state: State, *prefixes: str) -> State:
    return {key: tensor for key, tensor in state.items() if not key.startswith(prefixes)}


def _provenance(name_or_path: str | Path, path: Path) -> EncoderProvenance:
    sha256 = sha256_of(path)
    known = next((weights for weights in ENCODERS.values() if weights.sha256 == sha256), None)
    if known is not None:
        return EncoderProvenance(name=known.name, sha256=sha256, licence=known.licence)
    return EncoderProvenance(name=Path(name_or_path).name, sha256=sha256)


# -- checkpoints of the authors' training code (PyTorch Lightning's ``.ckpt``) --------------------------------

_AUTHORS_NECKS = ("fusion_neck.", "extra_encoder.neck.")
_AUTHORS_SAM = "model.image_encoder."
_RENAMED = {
    "model.mask_decoder.": "mask_decoder.",
    "model.prompt_encoder.": "prompt.",
    "extra_encoder.model.": "pathology_encoder.model.",
    **dict.fromkeys(_AUTHORS_NECKS, "neck."),
}
_UNUSED = tuple(
    f"model.prompt_encoder.{part}." for part in ("point_embeddings", "not_a_point_embed", "mask_downscaling")
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
    state = tensors_of(read_checkpoint(path, trust=trust), path, "state_dict")
    if any(key.startswith("model.model.") for key in state):
        state = without_prefixes(state, "model.")
    card = TEMPLATES.get(str(template)) or ModelCard.read(Path(template))
    _check_variant(state, card, path)
    model = _model_from_authors_state(state, card, path)
    sha256 = sha256_of(path)
    converted = card.model_copy(
        update={
            "encoders": (EncoderProvenance(name=f"as trained in {path.name}", sha256=sha256, licence=card.licence),),
            "scores": {},
            "recipe": {"converted_from": path.name, "checkpoint_sha256": sha256},
        }
    )
    return save_bundle(out, model, converted, torch.float32)


def _model_from_authors_state(state: State, card: ModelCard, source: Path) -> SamPath:
    with torch.device("meta"):
        model = SamPath(card.architecture, len(card.classes), mean=card.mean, std=card.std)
    renamed = {
        new_key: tensor for key, tensor in state.items() if (new_key := _new_key(key, card.architecture)) is not None
    }
    positions = "pathology_encoder.model.pos_embed"
    if model.pathology_encoder is not None and positions in renamed:
        prefix_tokens = model.pathology_encoder.model.num_prefix_tokens
        renamed[positions] = interpolate_positions(renamed[positions], card.architecture.grid, prefix_tokens, source)
    check_state(renamed, model.state_dict(), f"{source}: the checkpoint does not fit '{card.name}'")
    model.load_state_dict({key: tensor.float() for key, tensor in renamed.items()}, assign=True)
    return model.eval()


def _new_key(key: str, architecture: Architecture) -> str | None:
    """Return the model's key for one of the authors', or None where the authors' code carries it without using it."""
    if key.startswith(_AUTHORS_SAM + "neck."):
        # Only without a pathology encoder is SAM's own neck run.
        return key.removeprefix(_AUTHORS_SAM) if architecture.pathology is None else None
    if key.startswith(_AUTHORS_SAM):
        return "sam_encoder." + key.removeprefix(_AUTHORS_SAM) if architecture.sam is not None else None
    if key.startswith(_UNUSED):
        return None
    old = next((old for old in _RENAMED if key.startswith(old)), None)
    return key if old is None else _RENAMED[old] + key.removeprefix(old)


def _check_variant(state: State, card: ModelCard, source: Path) -> None:
    fused, own_neck = (any(key.startswith(neck) for key in state) for neck in _AUTHORS_NECKS)
    has_pathology, has_sam = fused or own_neck, not own_neck
    architecture = card.architecture
    if has_pathology != (architecture.pathology is not None) or has_sam != (architecture.sam is not None):
        parts = [name for name, there in (("SAM's encoder", has_sam), ("a pathology encoder", has_pathology)) if there]
        only = " only" if len(parts) == 1 else ""
        raise ModelError(
            f"{source}: the checkpoint is a model with {' and '.join(parts)}{only}, unlike '{card.name}'",
            f"Choose another template: {', '.join(TEMPLATES)}.",
        )
    tokens = state.get("model.mask_decoder.mask_tokens.weight")
    if tokens is not None and len(tokens) != len(card.classes) + 2:
        raise ModelError(
            f"{source}: the checkpoint has {len(tokens) - 2} classes, '{card.name}' has {len(card.classes)}",
            "Choose the template of the data set it was trained on.",
        )
