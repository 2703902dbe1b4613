"""Options: one model a stage, from which configuration, flags and keywords come."""

from sampath_wsi.options.base import Options, as_flags, explained
from sampath_wsi.options.config import Config, load_config, parse_setting, read_config, with_settings
from sampath_wsi.options.prepare import SplitOptions, SyntheticGlandOptions, SyntheticOptions
from sampath_wsi.options.stages import ImageOptions, InferOptions, StitchOptions, TileOptions, VectorizeOptions
from sampath_wsi.options.training import (
    ExperimentOptions,
    ExperimentsOptions,
    ModelScoringOptions,
    PromptScoringOptions,
    ScoringOptions,
    TrainingOptions,
)

__all__ = [
    "Config",
    "ExperimentOptions",
    "ExperimentsOptions",
    "ImageOptions",
    "InferOptions",
    "ModelScoringOptions",
    "Options",
    "PromptScoringOptions",
    "ScoringOptions",
    "SplitOptions",
    "StitchOptions",
    "SyntheticGlandOptions",
    "SyntheticOptions",
    "TileOptions",
    "TrainingOptions",
    "VectorizeOptions",
    "as_flags",
    "explained",
    "load_config",
    "parse_setting",
    "read_config",
    "with_settings",
]
