"""SAM-Path: the model, its bundles and cards, and the checkpoints it is made from.

The names below are loaded on first use, so that importing this package (for the command line's help, or a card)
does not load torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sampath_wsi.model.bundle import Bundle, load_bundle, save_bundle
    from sampath_wsi.model.card import Architecture, ModelCard, PathologyEncoderSpec, SamEncoderSpec
    from sampath_wsi.model.sampath import (
        SamPath,
        build_model,
        frozen_parameters,
        predict_labels,
        trainable_parameters,
        upsample_logits,
    )
    from sampath_wsi.model.zoo import resolve_model

_HOMES = {
    "Bundle": "bundle",
    "load_bundle": "bundle",
    "save_bundle": "bundle",
    "Architecture": "card",
    "ModelCard": "card",
    "PathologyEncoderSpec": "card",
    "SamEncoderSpec": "card",
    "SamPath": "sampath",
    "build_model": "sampath",
    "frozen_parameters": "sampath",
    "predict_labels": "sampath",
    "trainable_parameters": "sampath",
    "upsample_logits": "sampath",
    "resolve_model": "zoo",
}

__all__ = [
    "Architecture",
    "Bundle",
    "ModelCard",
    "PathologyEncoderSpec",
    "SamEncoderSpec",
    "SamPath",
    "build_model",
    "frozen_parameters",
    "load_bundle",
    "predict_labels",
    "resolve_model",
    "save_bundle",
    "trainable_parameters",
    "upsample_logits",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
