"""The configuration of the workflow: read, completed and checked."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field

from sampath_wsi.errors import ConfigError
from sampath_wsi.options.base import NAME, Options
from sampath_wsi.options.stages import ImageOptions, InferOptions, StitchOptions, TileOptions, VectorizeOptions
from sampath_wsi.options.training import ExperimentsOptions, TrainingOptions

log = logging.getLogger(__name__)

# Keys of earlier versions, which configurations that are saved in results still have.
RENAMED = {
    **{f"experiments.{name}.flips": f"experiments.{name}.tta" for name in ("bcss", "crag", "glas")},
    "dask": "stitch.dask",
    "images.tiff": "images.classes",
    "infer.shards": "infer.parts",
}


class Config(Options):
    """The configuration of a run (config/config.yaml, or --config key=value)."""

    slides: Annotated[str, Field(min_length=1)]
    """path of a sample sheet (.tsv), or patterns of slides such as data/*.svs, separated by commas"""
    output: Annotated[str, Field(pattern=NAME)] = "results"
    """the folder of all results, without braces and control characters in its name"""
    model: Annotated[str, Field(pattern=NAME)] = "demo"
    """the name of a model that ships (demo), or the path of a model bundle, without braces"""
    tile: TileOptions = TileOptions()
    """how slides are cut into tiles"""
    infer: InferOptions = InferOptions()
    """how the model is run"""
    stitch: StitchOptions = StitchOptions()
    """how tiles become one map"""
    vectorize: VectorizeOptions = VectorizeOptions()
    """how the map becomes polygons"""
    images: ImageOptions = ImageOptions()
    """pictures to open beside the slide, as OME-TIFF"""
    training: TrainingOptions = TrainingOptions()
    """a model of one's own: snakemake train"""
    smoke: bool = False
    """run the experiments on tiny synthetic stand-ins, on the CPU, in minutes; its numbers mean nothing"""
    experiments: ExperimentsOptions = ExperimentsOptions()
    """the paper's experiments (targets experiment_bcss, experiment_crag, experiment_glas, sweep_bcss, ...)"""

    @property
    def segmentation(self) -> dict[str, object]:
        """Return the part of the configuration that decides about segmentation (all but training), as a JSON object."""
        return self.model_dump(mode="json", exclude={"training", "smoke", "experiments"})


def load_config(config: Mapping[str, object]) -> Config:
    """Check a configuration and fill in what it leaves out. Keys that have a new name count, with a warning.

    Raises
    ------
    ConfigError
        Its message names the key, the problem, and the allowed values.
    """
    given = {key: value for key, value in config.items() if value is not None}
    for old, new in RENAMED.items():
        found, value = _taken(given, old.split("."))
        if found:
            log.warning("config: the key '%s' is called '%s' now", old, new)
            given = _with(given, new.split("."), value, new)
    return Config.of(given, "config")


def read_config(path: Path) -> dict[str, Any]:
    """Return the keys of a configuration file (YAML or JSON), not checked.

    Raises
    ------
    ConfigError
        If it cannot be read, or holds no keys.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such configuration", "Check the path.") from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}", "Mend its YAML.") from error
    if not isinstance(content, dict | None):
        raise ConfigError(f"{path}: it holds no keys", "Write it as config/config.yaml is written.")
    return content or {}


def with_settings(config: Mapping[str, object], settings: Sequence[str]) -> dict[str, Any]:
    """Return a configuration with ``key=value`` set; a section that is set keeps its other keys.

    Raises
    ------
    ConfigError
        If a setting is not of this form, or a part of its key is no section.
    """
    changed = dict(config)
    for setting in settings:
        parts, value = parse_setting(setting, example="vectorize.tolerance=0")
        changed = _with(changed, parts, value, setting)
    return changed


def parse_setting(setting: str, example: str) -> tuple[list[str], object]:
    """Return the parts of the key, which dots join, and the value of ``key=value``; the value is YAML.

    Raises
    ------
    ConfigError
        If it is not of this form; the message shows the example.
    """
    key, equals, text = setting.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(f"'{setting}' is not of the form key=value", f"Write e.g. {example}.")
    try:
        return parts, yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"the value of '{setting}' is not YAML", "Quote it.") from error


def _with(config: dict[str, object], parts: list[str], value: object, setting: str) -> dict[str, object]:
    below = config.get(parts[0])
    if len(parts) > 1:
        if not isinstance(below, dict | None):
            raise ConfigError(f"'{setting}': {parts[0]} is no section of the configuration", "Correct the key.")
        value = _with(below or {}, parts[1:], value, setting)
    elif isinstance(below, dict) and isinstance(value, dict):
        value = {**below, **value}
    return {**config, parts[0]: value}


def _taken(config: dict[str, object], parts: list[str]) -> tuple[bool, object]:
    """Take a key out of a configuration; return whether it was there, and its value."""
    *sections, key = parts
    for name in sections:
        below = config.get(name)
        if not isinstance(below, dict):
            return False, None
        config[name] = config = dict(below)
    return key in config, config.pop(key, None)
