"""The smoke run: every rule of the experiments on stand-ins so small that two CPU cores do all of it in minutes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

SMOKE_IMAGES = 8
SMOKE_IMAGE_PX = 160
# The encoders have the shapes of those that sampath_wsi.synthetic.stand_ins writes.
_ARCHITECTURE = {
    "image_size": 64,
    "sam": {"embed_dim": 32, "depth": 2, "heads": 2, "global_blocks": [1], "window": 4},
    "pathology": {"name": "vit_tiny_patch16_224", "kwargs": {"embed_dim": 24, "depth": 1, "num_heads": 2}},
    "decoder_dim": 256,
}
SMOKE_SETTINGS = [
    f"architecture={json.dumps(_ARCHITECTURE)}",
    "tile_px=64",
    "overlap_px=8",
    "epochs=1",
    "batch_size=2",
    "accumulate=1",
    "tiles_per_epoch=4",
    "validate_every=1",
    "precision=fp32",
    "freeze_encoders=true",
    "optimiser.warmup_epochs=0.5",
    "optimiser.milestones=[]",
]
"""What a training of the smoke run has otherwise than its recipe."""


def smoke_config(section: Mapping[str, Any]) -> dict[str, Any]:
    """The section ``experiments`` of a smoke run: other paths, tiny weights, one seed, few values of the sweeps."""
    output = f"{section['output']}-smoke"
    small: dict[str, Any] = {
        "output": output,
        "device": "cpu",
        "devices": 1,
        "seeds": [0],
        "sam": f"{output}/encoders/tiny-sam.pth",
        "pathology": f"{output}/encoders/tiny-hipt.pth",
        "alpha": [0.125, 0.25],
        "beta": [0.0, 0.0625],
    }
    data_sets = {name: value for name, value in section.items() if isinstance(value, Mapping)}
    return {**section, **small} | {
        name: {**own, "source": f"{output}/raw/{name}", "folds": 3, "val_share": None, **_OWN[name]}
        for name, own in data_sets.items()
    }


# One data set in tiles, the others in whole images; every row of Table 1, every way of splitting that needs no file,
# and both ways of beginning: with weights of encoders, and pretrained on synthetic glands.
_WEIGHTS = {"pretrained": True, "pretraining": None}
_OWN: dict[str, dict[str, Any]] = {
    "bcss": {"tile_px": 96, "splits": ["official"], "rows": ["no_pathology", "no_sam", "sampath"]} | _WEIGHTS,
    "crag": {"tile_px": 0, "splits": ["official"], "rows": ["vanilla", "vanilla_pp", "no_pathology", "sampath"]}
    | _WEIGHTS,
    "glas": {"tile_px": 0, "splits": ["official", "disjoint"], "rows": ["vanilla", "sampath"]},
}
