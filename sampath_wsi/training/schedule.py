"""The learning rate over time."""

from __future__ import annotations

import math

from sampath_wsi.training.recipe import OptimiserSpec


def learning_rate_factor(spec: OptimiserSpec, step: int, steps_per_epoch: int, epochs: int) -> float:
    """What the learning rate is multiplied by at an optimiser step, counted from 0."""
    warmup = spec.warmup_epochs * steps_per_epoch
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if spec.schedule == "milestones":
        return float(spec.gamma ** sum(step >= epoch * steps_per_epoch for epoch in spec.milestones))
    if spec.schedule == "cosine":
        done = (step - warmup) / max(1.0, epochs * steps_per_epoch - warmup)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return 1.0
