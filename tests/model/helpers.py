"""Small models, cards and checkpoints for the tests of the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sampath_wsi.classes import TissueClass
from sampath_wsi.model.card import Architecture, ModelCard, PathologyEncoderSpec, SamEncoderSpec
from sampath_wsi.model.libraries import segment_anything
from sampath_wsi.model.sampath import SamPath

SAM = SamEncoderSpec(embed_dim=32, depth=2, heads=2, global_blocks=(1,), window=3)
VIT = PathologyEncoderSpec(name="vit_tiny_patch16_224", kwargs={"embed_dim": 48, "depth": 1, "num_heads": 3})
VARIANTS = ("both", "sam", "pathology")
CLASSES = tuple(TissueClass(name=name, color=(i, 0, 0)) for i, name in enumerate("ABC"))


def architecture(variant: str = "both", image_size: int = 64, decoder_dim: int = 32) -> Architecture:
    return Architecture(
        image_size=image_size,
        sam=SAM if variant != "pathology" else None,
        pathology=VIT if variant != "sam" else None,
        decoder_dim=decoder_dim,
    )


def model(variant: str = "both", seed: int = 0, **changes: Any) -> SamPath:
    torch.manual_seed(seed)
    built = SamPath(architecture(variant, **changes), len(CLASSES)).eval()
    # Relative positions begin at zero; then no test would notice them missing.
    for name, parameter in built.named_parameters():
        if "rel_pos" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return built


def card(variant: str = "both", **changes: Any) -> ModelCard:
    size = changes.get("image_size", 64)
    return ModelCard(
        name="tiny",
        architecture=architecture(variant, **changes),
        classes=CLASSES,
        mpp=0.5,
        tile_px=2 * size,
        overlap_px=size // 2,
    )


def images(count: int = 2, size: int = 64, seed: int = 1) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def small_sam(image_size: int = 64, seed: int = 2) -> Any:
    """segment-anything's own SAM, of SAM's width behind the neck and a small encoder."""
    torch.manual_seed(seed)
    grid, parts = image_size // 16, segment_anything.modeling
    sam = parts.Sam(
        image_encoder=parts.ImageEncoderViT(
            img_size=image_size,
            embed_dim=SAM.embed_dim,
            depth=SAM.depth,
            num_heads=SAM.heads,
            norm_layer=lambda dim: torch.nn.LayerNorm(dim, eps=1e-6),
            use_rel_pos=True,
            window_size=SAM.window,
            global_attn_indexes=SAM.global_blocks,
        ),
        prompt_encoder=parts.PromptEncoder(256, (grid, grid), (image_size, image_size), 16),
        mask_decoder=parts.MaskDecoder(
            transformer_dim=256,
            transformer=parts.TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8),
        ),
    )
    for name, parameter in sam.named_parameters():
        if "rel_pos" in name or "pos_embed" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return sam.eval()


def authors_state(model: SamPath) -> dict[str, torch.Tensor]:
    """A model's state under the keys of the authors' code, with what that code carries unused."""
    fused = model.sam_encoder is not None and model.pathology_encoder is not None
    neck = (
        "fusion_neck." if fused else "extra_encoder.neck." if model.sam_encoder is None else "model.image_encoder.neck."
    )
    places = {
        "sam_encoder.": "model.image_encoder.",
        "neck.": neck,
        "prompt.": "model.prompt_encoder.",
        "mask_decoder.": "model.mask_decoder.",
        "pathology_encoder.model.": "extra_encoder.model.",
    }
    state = {}
    for key, tensor in model.state_dict().items():
        ours, theirs = next((a, b) for a, b in places.items() if key.startswith(a))
        state[theirs + key.removeprefix(ours)] = tensor.clone()
    state["model.prompt_encoder.point_embeddings.0.weight"] = torch.zeros(1, 32)
    state["model.prompt_encoder.mask_downscaling.0.bias"] = torch.zeros(4)
    if fused:
        state["model.image_encoder.neck.1.bias"] = torch.zeros(32)
    if model.sam_encoder is None:
        state["model.image_encoder.pos_embed"] = torch.zeros(1, 4, 4, 32)
    return state


def lightning_checkpoint(path: Path, state: dict[str, torch.Tensor], **extra: Any) -> Path:
    """A file like PyTorch Lightning's."""
    record = {"epoch": 3, "state_dict": {"model." + key: tensor for key, tensor in state.items()}, "loops": {}}
    torch.save({**record, "hyper_parameters": {"lr": 1e-4}, **extra}, path)
    return path
