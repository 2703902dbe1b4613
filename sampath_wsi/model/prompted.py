"""Vanilla SAM with one dot per instance, and the same with post-processing: the first rows of the paper's Table 1.

SAM gives each dot one mask; the union of the masks is taken as gland. SAM sometimes takes the whole image for one
instance; the post-processing drops instances that cover more than half of the image.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

import sampath_wsi.model.torchvision_compat  # noqa: F401

# isort: split
from segment_anything import SamPredictor, sam_model_registry

from sampath_wsi.errors import ModelError
from sampath_wsi.model.bundle import check_state
from sampath_wsi.model.card import SAM_SIZES
from sampath_wsi.model.checkpoints import read_checkpoint, tensors_of
from sampath_wsi.model.registry import find_encoder
from sampath_wsi.model.sam_encoder import fuse_attention

BACKGROUND_LABEL = 1
INSTANCE_LABEL = 2
HALF_THE_IMAGE = 0.5
_DOTS_AT_A_TIME = 16


def load_vanilla_sam(size: str, checkpoint: str | Path | None = None) -> Any:
    """The public SAM, prompt encoder and all, in eval mode.

    Parameters
    ----------
    size
        ``vit_b``, ``vit_l`` or ``vit_h``.
    checkpoint
        Its checkpoint: a path or a name of the registry; by default the public one of that size.

    Raises
    ------
    ModelError
        If the checkpoint cannot be had or read, or is of another size.
    """
    if size not in SAM_SIZES:
        raise ModelError(f"there is no SAM '{size}'", f"Choose one of {', '.join(SAM_SIZES)}.")
    path = find_encoder(checkpoint or f"sam_{size}")
    state = tensors_of(read_checkpoint(path), path, "model", "state_dict")
    with torch.device("meta"):
        sam = sam_model_registry[size]()
    check_state(state, sam.state_dict(), f"{path}: not the weights of SAM {size}")
    sam.load_state_dict(state, assign=True)
    # Not in the state: created on the meta device with the rest.
    for name, values in (("pixel_mean", (123.675, 116.28, 103.53)), ("pixel_std", (58.395, 57.12, 57.375))):
        sam.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)
    fuse_attention(sam.image_encoder)
    return sam.eval().requires_grad_(False)


def dots_of_instances(instances: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """One dot inside each instance: the pixel farthest from the instance's border, of several the first row by row.

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
    sam: Any, image: NDArray[np.uint8], dots_px: NDArray[np.int64], *, drop_larger_than: float | None = None
) -> NDArray[np.uint8]:
    """The class map that vanilla SAM makes of one dot per instance.

    Of SAM's three masks for a dot, the one with the highest predicted IoU is taken.

    Parameters
    ----------
    sam
        From :func:`load_vanilla_sam`.
    image
        ``(height, width, 3)`` RGB.
    dots_px
        ``(n, 2)`` x and y in pixels of the image.
    drop_larger_than
        Drop masks that cover more than this fraction of the image: :data:`HALF_THE_IMAGE` in the paper's
        post-processing, None without it.

    Returns
    -------
    ``(height, width)``: 2 where any mask is, 1 elsewhere.
    """
    labels = np.full(image.shape[:2], BACKGROUND_LABEL, dtype=np.uint8)
    if len(dots_px) == 0:
        return labels
    predictor = SamPredictor(sam)
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
