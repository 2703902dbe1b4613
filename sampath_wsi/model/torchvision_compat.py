"""Lets torchvision be imported beside a torch that its compiled library does not fit.

PyPI's torchvision is a CUDA build; beside a CPU build of torch its library cannot be loaded, and importing
torchvision then fails because it describes operators that nobody declared. timm, segment-anything and torchmetrics
fail with it. Importing this module before any of them declares those operators, with a plain ``nms`` for the CPU.
Where torchvision's own library loads, or torchvision is absent, nothing is declared.

It also imports torchvision and timm, which would otherwise load all of torch's compiler for functions that this
project never calls (RoI align, NaFlex): more than a second of CPU time for every slide.

Whatever imports timm, torchvision or segment_anything imports this module first.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import torch

from sampath_wsi.model.shapes import compiler_left_out

_NMS_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def nms(dets: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Non-maximum suppression in plain torch.

    Parameters
    ----------
    dets
        ``(n, 4)`` boxes ``x0, y0, x1, y1``.
    scores
        ``(n,)``; a box is dropped if its IoU with a kept box of a higher score exceeds the threshold.
    iou_threshold
        In [0, 1].

    Returns
    -------
    Indices (int64) of the boxes kept, by falling score.
    """
    order = torch.argsort(scores, descending=True, stable=True)
    x0, y0, x1, y1 = dets[order].unbind(1)
    area = (x1 - x0) * (y1 - y0)
    alive = torch.ones(len(order), dtype=torch.bool, device=dets.device)
    for i in range(len(order)):
        if not alive[i]:
            continue
        width = (torch.minimum(x1[i], x1) - torch.maximum(x0[i], x0)).clamp_(min=0)
        height = (torch.minimum(y1[i], y1) - torch.maximum(y0[i], y0)).clamp_(min=0)
        shared = width * height
        # Compared without dividing: boxes without area have no IoU and suppress nothing.
        suppressed = shared > iou_threshold * (area[i] + area - shared)
        suppressed[: i + 1] = False
        alive &= ~suppressed
    return order[alive]


def own_library_loads() -> bool:
    """Whether torchvision's compiled library fits this torch (true also where torchvision is absent)."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return True
    libraries = [p for folder in spec.submodule_search_locations for p in sorted(Path(folder).glob("_C*.*"))]
    for library in libraries:
        try:
            torch.ops.load_library(library)
        except OSError:
            continue
        return True
    return False


def _declare_missing_operators() -> torch.library.Library | None:
    """Declare the operators if nobody has; the returned library must be kept alive."""
    if "torchvision" in sys.modules or own_library_loads():
        return None
    library = torch.library.Library("torchvision", "DEF")
    library.define(f"nms{_NMS_SCHEMA}")
    library.define(f"qnms{_NMS_SCHEMA}")
    library.impl("nms", nms, "CPU")

    import torchvision.extension

    # torchvision.ops asks this before it calls nms; its other compiled operators stay undeclared and say so.
    torchvision.extension._has_ops = lambda: True
    return library


with compiler_left_out():
    _library = _declare_missing_operators()
    import timm.models  # noqa: F401
DECLARED = _library is not None
"""Whether this module had to declare torchvision's operators."""
