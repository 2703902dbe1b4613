"""The paper's architecture (BCSS) with random weights: it costs what the trained one costs."""

from __future__ import annotations

from pathlib import Path


def write_random_model(folder: Path) -> None:
    """Write a bundle."""
    import torch

    from sampath_wsi.model.bundle import save_bundle
    from sampath_wsi.model.sampath import SamPath
    from sampath_wsi.model.zoo import template_card

    torch.manual_seed(0)
    card = template_card("sampath-bcss")
    model = SamPath(card.architecture, len(card.classes))
    for name, parameter in model.named_parameters():
        # As built they are zero, and nobody would notice them missing.
        if "rel_pos" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    save_bundle(folder, model, card)
