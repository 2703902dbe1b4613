"""The whole public SAM, prompt encoder and all, of whatever size a checkpoint holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

import sampath_wsi.model.torchvision_compat  # noqa: F401

# isort: split
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

from sampath_wsi.errors import ModelError
from sampath_wsi.model.bundle import check_state
from sampath_wsi.model.card import SamEncoderSpec
from sampath_wsi.model.checkpoints import State, read_checkpoint, tensors_of
from sampath_wsi.model.registry import find_encoder
from sampath_wsi.model.sam_encoder import build_public_encoder, fuse_attention

_WIDTH = 256
_PUBLIC_WINDOW = 14
_PIXELS = {"pixel_mean": (123.675, 116.28, 103.53), "pixel_std": (58.395, 57.12, 57.375)}


def build_vanilla_sam(spec: SamEncoderSpec, image_size: int = 1024) -> Any:
    """SAM with an encoder of this shape and the decoder that all public sizes share, freshly initialised.

    Parameters
    ----------
    image_size
        Side in pixels of the square that images are scaled and padded to.

    Returns
    -------
    A ``segment_anything.modeling.Sam`` in eval mode.
    """
    grid = image_size // spec.patch
    encoder = build_public_encoder(spec, image_size, _WIDTH)
    transformer = TwoWayTransformer(depth=2, embedding_dim=_WIDTH, num_heads=8, mlp_dim=2048)
    return Sam(
        encoder,
        PromptEncoder(_WIDTH, (grid, grid), (image_size, image_size), mask_in_chans=16),
        MaskDecoder(transformer_dim=_WIDTH, transformer=transformer),
    ).eval()


def sam_spec_of(state: State, source: object) -> tuple[SamEncoderSpec, int]:
    """The shape of the encoder that a SAM's state belongs to, and its image size in pixels.

    The width of a head and the side of each block's attention follow from its relative positions.

    Raises
    ------
    ModelError
        If it is not the state of a SAM; ``source`` is named.
    """
    prefix = "image_encoder.blocks."
    try:
        _, grid, _, channels = state["image_encoder.pos_embed"].shape
        depth = 1 + max(int(key.removeprefix(prefix).partition(".")[0]) for key in state if key.startswith(prefix))
        tables = [state[f"{prefix}{k}.attn.rel_pos_h"].shape for k in range(depth)]
        sides = [(length + 1) // 2 for length, _ in tables]
        spec = SamEncoderSpec(
            embed_dim=channels,
            depth=depth,
            heads=channels // tables[0][1],
            global_blocks=tuple(k for k, side in enumerate(sides) if side == grid),
            window=next((side for side in sides if side != grid), _PUBLIC_WINDOW),
        )
    except (KeyError, ValueError) as error:
        raise ModelError(f"{source}: not the weights of a SAM", "Give a checkpoint of segment-anything.") from error
    return spec, grid * spec.patch


def load_vanilla_sam(name_or_path: str | Path) -> Any:
    """SAM as a checkpoint has it, in eval mode and without gradients.

    Parameters
    ----------
    name_or_path
        A checkpoint in the public format, of any size, or a name of the registry, such as ``sam_vit_b``.

    Raises
    ------
    ModelError
        If the checkpoint cannot be had or read, or is not a SAM's.
    """
    path = find_encoder(name_or_path)
    state = tensors_of(read_checkpoint(path), path, "model", "state_dict")
    with torch.device("meta"):
        sam = build_vanilla_sam(*sam_spec_of(state, path))
    check_state(state, sam.state_dict(), f"{path}: not the weights of a SAM")
    sam.load_state_dict(state, assign=True)
    # Not in the state: created on the meta device with the rest.
    for name, values in _PIXELS.items():
        sam.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)
    fuse_attention(sam.image_encoder)
    return sam.requires_grad_(False)
