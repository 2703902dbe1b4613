"""The stages, from a slide to its picture: arithmetic and I/O of each. No stage knows another; they meet in stores."""

from __future__ import annotations

VERSIONS = {
    "tile": 4,
    "infer": 1,
    "stitch": 2,
    "vectorize": 2,
    "tile-objects": 1,
    "report": 4,
    "images": 1,
    "evaluate": 1,
    "demo-data": 1,
    "prepare": 2,
    "split": 1,
    "train": 1,
    "test": 1,
    "experiment": 1,
}
"""The version of each stage's arithmetic. Raise it when what the stage computes changes, or the default of one of its
options (rules name only those that differ): results that an older one made are then made anew, whoever runs the stage.
It is part of the provenance of stores and of the parameters of rules, and stands here rather than beside the arithmetic
because the workflow reads it each time that it is parsed, also by every job of a cluster, and must not load the stages
for it."""
