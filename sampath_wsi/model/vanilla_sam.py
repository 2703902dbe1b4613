"""Vanilla SAM of any size, prompted with one dot per instance: the first two rows of the paper's Table 1.

SAM gives each dot one mask; the union of the masks is taken as gland. SAM sometimes takes the whole image for one
instance; the post-processing drops instances that cover more than half of the image.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from sampath_wsi.errors import ModelError
from sampath_wsi.model.bundle import check_state
from sampath_wsi.model.card import SamEncoderSpec
from sampath_wsi.model.checkpoints import State, read_checkpoint, tensors_of
from sampath_wsi.model.libraries import segment_anything
from sampath_wsi.model.sam_encoder import build_public_encoder, decompose_attention
from sampath_wsi.model.zoo import find_encoder

BACKGROUND_LABEL = 1
INSTANCE_LABEL = 2
HALF_THE_IMAGE = 0.5
_DOTS_AT_A_TIME = 16
_WIDTH = 256
_PUBLIC_WINDOW = 14
_PIXELS = {"pixel_mean": (123.675, 116.28, 103.53), "pixel_std": (58.395, 57.12, 57.375)}


def build_vanilla_sam(spec: SamEncoderSpec, image_size: int = 1024) -> Any:
    """Build SAM with an encoder of this shape and the decoder that all public sizes share, freshly initialised.

    Parameters
    ----------
    image_size
        Side in pixels of the square that images are scaled and padded to.

    Returns
    -------
    A ``segment_anything.modeling.Sam`` in eval mode.
    """
    parts = segment_anything.modeling
    grid = image_size // spec.patch
    transformer = parts.TwoWayTransformer(depth=2, embedding_dim=_WIDTH, num_heads=8, mlp_dim=2048)
    return parts.Sam(
        build_public_encoder(spec, image_size, _WIDTH),
        parts.PromptEncoder(_WIDTH, (grid, grid), (image_size, image_size), mask_in_chans=16),
        parts.MaskDecoder(transformer_dim=_WIDTH, transformer=transformer),
    ).eval()


def sam_spec_of(state: State, source: object) -> tuple[SamEncoderSpec, int]:
    """Return the shape of the encoder that a SAM's state belongs to, and its image size in pixels.

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
    """Load SAM as a checkpoint has it, in eval mode and without gradients.

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
    decompose_attention(sam.image_encoder)
    return sam.requires_grad_(False)


def dots_of_instances(instances: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return one dot in each instance: the pixel farthest from its border, of several the first row by row.

    Parameters
    ----------
    instances
        ``(height, width)``; 0 is background, every other value one instance. The image's edge counts as border.

    Returns
    -------
    ``(n, 2)`` columns and rows (x, y) in pixels, by rising instance number.
    """
    numbered = instances.astype(np.int64, copy=False)
    labels, compact = np.unique(numbered, return_inverse=True)
    compact = compact.reshape(numbered.shape) + int(labels[0] != 0)
    dots = []
    for number, box in enumerate(ndimage.find_objects(compact), start=1):
        depth = ndimage.distance_transform_edt(np.pad(compact[box] == number, 1))[1:-1, 1:-1]
        row, column = np.unravel_index(int(depth.argmax()), depth.shape)
        dots.append((box[1].start + column, box[0].start + row))
    return np.array(dots, dtype=np.int64).reshape(-1, 2)


def segment_by_dots(
    sam: Any,
    image: NDArray[np.uint8],
    dots_px: NDArray[np.int64],
    *,
    drop_larger_than: float | None = None,
    predictor_of: Callable[[Any], Any] = segment_anything.SamPredictor,
) -> NDArray[np.uint8]:
    """Return the class map that vanilla SAM makes of one dot per instance.

    Of SAM's three masks for a dot, the one with the highest predicted IoU is taken.

    Parameters
    ----------
    sam
        From :func:`load_vanilla_sam`. It sees images of any size scaled to its own, the longest side to ``img_size``
        (1024 px), and its masks come back at theirs.
    image
        ``(height, width, 3)`` RGB.
    dots_px
        ``(n, 2)`` x and y in pixels of the image.
    drop_larger_than
        Drop masks that cover more than this fraction of the image: :data:`HALF_THE_IMAGE` in the paper's
        post-processing, None without it.
    predictor_of
        Makes the predictor that prompts ``sam``.

    Returns
    -------
    ``(height, width)``: 2 where any mask is, 1 elsewhere.
    """
    labels = np.full(image.shape[:2], BACKGROUND_LABEL, dtype=np.uint8)
    if len(dots_px) == 0:
        return labels
    predictor = predictor_of(sam)
    predictor.set_image(image)
    points = predictor.transform.apply_coords(dots_px.astype(np.float64), image.shape[:2])
    points = torch.as_tensor(points, dtype=torch.float32, device=predictor.device)[:, None]
    limit = np.inf if drop_larger_than is None else drop_larger_than * labels.size
    for part in points.split(_DOTS_AT_A_TIME):
        foreground = torch.ones(part.shape[:2], dtype=torch.int, device=part.device)
        masks, iou, _ = predictor.predict_torch(part, foreground, multimask_output=True)
        best = masks[torch.arange(len(masks)), iou.argmax(dim=1)].cpu().numpy()
        kept = best[best.sum(axis=(1, 2)) <= limit]
        labels[kept.any(axis=0)] = INSTANCE_LABEL
    return labels
