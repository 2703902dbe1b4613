"""timm and segment-anything, which import torchvision, also where torchvision does not fit the installed torch.

PyPI's torchvision is a CUDA build. Beside a CPU build of torch its compiled library cannot be loaded, and importing
torchvision fails because it describes two operators that nobody declared. They are declared here, without an
implementation: this program calls neither. Where torchvision's own library loads, nothing is declared.

Import the two libraries from here; import this module before anything else that imports torchvision (torchmetrics).
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import torch

__all__ = ["declare_torchvision_operators", "segment_anything", "timm", "torchvision_fits"]


def torchvision_fits() -> bool:
    """Return whether torchvision's compiled library loads beside this torch; true also where torchvision is absent."""
    spec = importlib.util.find_spec("torchvision")
    folders = (spec and spec.submodule_search_locations) or ()
    for library in (path for folder in folders for path in Path(folder).glob("_C*.*")):
        try:
            torch.ops.load_library(library)
        except OSError:
            continue
        return True
    return not folders


def declare_torchvision_operators() -> torch.library.Library | None:
    """Declare the operators if nobody has; they exist for as long as the returned library."""
    if "torchvision" in sys.modules or torchvision_fits():
        return None
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


_library = declare_torchvision_operators()

import segment_anything  # noqa: E402
import timm  # noqa: E402
