"""Encoder checkpoints of random weights in the formats of the public files, so small that anything runs in a second.

They stand in for SAM and HIPT where a workflow is tried out; what comes of them means nothing.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from sampath_wsi.files import written_aside
from sampath_wsi.model.card import PathologyEncoderSpec, SamEncoderSpec
from sampath_wsi.model.pathology_encoder import PathologyEncoder
from sampath_wsi.model.vanilla_sam import build_vanilla_sam

TINY_SAM = SamEncoderSpec(embed_dim=32, depth=2, heads=2, global_blocks=(1,), window=4)
TINY_SAM_IMAGE_PX = 128
TINY_HIPT = PathologyEncoderSpec(name="vit_tiny_patch16_224", kwargs={"embed_dim": 24, "depth": 1, "num_heads": 2})
_PUBLIC_HIPT_GRID = 14


def write_tiny_sam(path: str | Path, seed: int = 0) -> None:
    """Write a SAM of the shape :data:`TINY_SAM` as the public files are: the flat state, nothing around it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sam = build_vanilla_sam(TINY_SAM, TINY_SAM_IMAGE_PX)
    with written_aside(Path(path)) as aside:
        torch.save(sam.state_dict(), aside)


def write_tiny_hipt(path: str | Path, seed: int = 0) -> None:
    """Write a vision transformer of the shape :data:`TINY_HIPT` as HIPT's file is: DINO's teacher, for 224 px."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vit = PathologyEncoder(TINY_HIPT, _PUBLIC_HIPT_GRID).model
    teacher = {f"backbone.{key}": tensor for key, tensor in vit.state_dict().items()}
    with written_aside(Path(path)) as aside:
        torch.save({"teacher": teacher, "epoch": 0, "args": argparse.Namespace(patch_size=16)}, aside)
