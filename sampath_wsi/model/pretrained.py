"""Starts a model from the public weights of its encoders, as SAM-Path's training does."""

from __future__ import annotations

import argparse
from pathlib import Path

from sampath_wsi.errors import ModelError
from sampath_wsi.files import sha256 as sha256_of
from sampath_wsi.model.bundle import check_state
from sampath_wsi.model.card import SAM_SIZES, Architecture, EncoderProvenance, PathologyEncoderSpec
from sampath_wsi.model.checkpoints import State, read_checkpoint, tensors_of, under, without_prefixes
from sampath_wsi.model.pathology_encoder import PathologyEncoder, interpolate_positions
from sampath_wsi.model.registry import ENCODERS, find_encoder
from sampath_wsi.model.sam_encoder import resize_sam_positions
from sampath_wsi.model.sampath import SamPath

SAM_DECODER_DIM = 256
_NEW_IN_DECODER = ("mask_tokens.", "output_hypernetworks_mlps.", "iou_prediction_head.layers.2.")


def default_encoders(architecture: Architecture) -> tuple[str | None, str | None]:
    """Names of the public weights that fit an architecture: (SAM, pathology); None where none are known.

    Without SAM's encoder the decoder still starts from SAM ViT-B.
    """
    wanted = architecture.sam or SAM_SIZES["vit_b"]
    sam = next((f"sam_{size}" for size, spec in SAM_SIZES.items() if spec == wanted), None)
    pathology = architecture.pathology
    return sam, "hipt_vit_small" if pathology == PathologyEncoderSpec.hipt() else None


def load_pretrained(
    model: SamPath, *, sam: str | Path | None = None, pathology: str | Path | None = None, trust: bool = False
) -> tuple[EncoderProvenance, ...]:
    """Load public weights into a model: encoders, and SAM's decoder where the model's has SAM's width.

    As in the authors' code, the class tokens and the last layer of the IoU head stay new, and the hypernetwork of
    every class begins as a copy of SAM's first. Position embeddings are fitted to the model's image size.

    Parameters
    ----------
    model
        Made by :func:`sampath_wsi.model.build_model`.
    sam
        SAM's checkpoint: a path or a name of the registry; None leaves SAM's parts fresh.
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
        load_sam(model, tensors_of(read_checkpoint(path, trust=trust), path, "model", "state_dict"), path)
        provenance.append(_provenance(sam, path))
    if pathology is not None:
        if model.pathology_encoder is None:
            raise ModelError("the model has no pathology encoder to load weights into", "Leave its weights out.")
        path = find_encoder(pathology)
        load_pathology(model.pathology_encoder, read_pathology_state(path, trust=trust), path)
        provenance.append(_provenance(pathology, path))
    return tuple(provenance)


def read_pathology_state(path: Path, *, trust: bool = False) -> State:
    """The backbone of a checkpoint in DINO's format (``teacher``, as HIPT's) or of a plain state dict.

    Raises
    ------
    ModelError
        If the file cannot be read safely or holds no weights.
    """
    record = read_checkpoint(path, allowed=[argparse.Namespace], trust=trust)
    state = without_prefixes(tensors_of(record, path, "teacher", "model", "state_dict"), "module.", "backbone.")
    return {key: tensor for key, tensor in state.items() if not key.startswith("head.")}


def load_pathology(encoder: PathologyEncoder, state: State, source: Path) -> None:
    """Load a vision transformer's state, its position embedding fitted to the encoder's grid.

    Raises
    ------
    ModelError
        If keys or shapes differ; ``source`` is named.
    """
    vit = encoder.model
    if "pos_embed" in state:
        prefix_tokens = 0 if vit.no_embed_class else vit.num_prefix_tokens
        state = {**state, "pos_embed": interpolate_positions(state["pos_embed"], encoder.grid, prefix_tokens, source)}
    check_state(state, vit.state_dict(), f"{source}: not the weights of the pathology encoder")
    vit.load_state_dict(state)


def load_sam(model: SamPath, state: State, source: Path) -> None:
    """Load the parts of SAM's state that the model has.

    Raises
    ------
    ModelError
        If keys or shapes differ, or the model has SAM's own neck but not its width; ``source`` is named.
    """
    if model.sam_encoder is not None:
        encoder = under(state, "image_encoder.")
        neck = under(encoder, "neck.")
        encoder = {key: tensor for key, tensor in encoder.items() if not key.startswith("neck.")}
        expected = model.sam_encoder.state_dict()
        encoder = resize_sam_positions(encoder, expected)
        check_state(encoder, expected, f"{source}: not the weights of the SAM encoder")
        model.sam_encoder.load_state_dict(encoder)
        if model.pathology_encoder is None:
            check_state(neck, model.neck.state_dict(), f"{source}: SAM's neck does not fit the model")
            model.neck.load_state_dict(neck)
    if model.architecture.decoder_dim == SAM_DECODER_DIM:
        _load_sam_decoder(model, state, source)


def _load_sam_decoder(model: SamPath, state: State, source: Path) -> None:
    decoder = under(state, "mask_decoder.")
    prompt = under(state, "prompt_encoder.")
    prompt = {key: tensor for key, tensor in prompt.items() if key.startswith(("pe_layer.", "no_mask_embed."))}
    hypernetwork = under(decoder, "output_hypernetworks_mlps.0.")
    kept = {key: tensor for key, tensor in decoder.items() if not key.startswith(_NEW_IN_DECODER)}
    own = model.mask_decoder.state_dict()
    expected = {key: tensor for key, tensor in own.items() if not key.startswith(_NEW_IN_DECODER)}
    what = f"{source}: not a SAM checkpoint"
    check_state(kept, expected, what)
    check_state(hypernetwork, under(own, "output_hypernetworks_mlps.0."), what)
    check_state(prompt, model.prompt.state_dict(), what)
    model.prompt.load_state_dict(prompt)
    model.mask_decoder.load_state_dict(kept, strict=False)
    model.mask_decoder.output_hypernetworks_mlps[0].load_state_dict(hypernetwork)
    model.mask_decoder.copy_first_hypernetwork()


def _provenance(name_or_path: str | Path, path: Path) -> EncoderProvenance:
    sha256 = sha256_of(path)
    known = next((weights for weights in ENCODERS.values() if weights.sha256 == sha256), None)
    if known is not None:
        return EncoderProvenance(name=known.name, sha256=sha256, licence=known.licence)
    return EncoderProvenance(name=Path(name_or_path).name, sha256=sha256, licence="")
