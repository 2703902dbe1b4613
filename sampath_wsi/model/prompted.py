"""Vanilla SAM with one dot per instance, and the same with post-processing: the first rows of the paper's Table 1.

SAM gives each dot one mask; the union of the masks is taken as gland. SAM sometimes takes the whole image for one
instance; the post-processing drops instances that cover more than half of the image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

import sampath_wsi.model.torchvision_compat  # noqa: F401

# isort: split
from segment_anything import SamPredictor

BACKGROUND_LABEL = 1
INSTANCE_LABEL = 2
HALF_THE_IMAGE = 0.5
_DOTS_AT_A_TIME = 16


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
        From :func:`sampath_wsi.model.vanilla_sam.load_vanilla_sam`. It sees images of any size scaled to its own, the
        longest side to ``img_size`` (1024 px), and its masks come back at theirs.
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
