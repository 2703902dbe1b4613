"""The model of a run is chosen by people: it is asked for, and results of another one are not overwritten."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tifffile

from sampath_wsi.cohort.table import read_json
from sampath_wsi.errors import ConfigError, ModelError
from sampath_wsi.model.card import ModelCard
from sampath_wsi.model.zoo import installed_card, installed_models
from sampath_wsi.options import read_config
from sampath_wsi.results import RunResults
from sampath_wsi.runs.sheet import SheetRow

# As synthetic/slide.py describes the slides that `demo-slide` writes.
_SYNTHETIC = "synthetic H&E, seed "


def check_named(model: str | None, rows: Sequence[SheetRow]) -> None:
    """Refuse a run that names no model, unless every slide was made by ``demo-slide``.

    Raises
    ------
    ConfigError
        It lists the models that are installed.
    """
    if not model and not all(_is_demonstration(Path(row.path)) for row in rows):
        raise ConfigError(
            "no model is named, and these are not demonstration slides",
            f"Say --model and one of {', '.join(installed_models())}, or the path of a model's folder "
            "('sampath-wsi model show NAME' says what each is for).",
        )


def _is_demonstration(path: Path) -> bool:
    """Whether a file says that ``demo-slide`` wrote it."""
    try:
        with tifffile.TiffFile(path) as tiff:
            return str(getattr(tiff.pages[0], "description", "")).startswith(_SYNTHETIC)
    except Exception:  # Whatever tifffile meets in files of any kind: then it is no such slide.
        return False


def check_folder(out: Path, card: ModelCard) -> None:
    """Refuse a folder that holds results of another model than the one of a run.

    Weights decide, not names: a model that was moved or renamed is the same. Where no slide is finished, it is the
    model of the configuration that an earlier run left, if that is still there.

    Raises
    ------
    ConfigError
        It names both models.
    """
    summaries = [read_json(slide.summary_file) for slide in RunResults(out).slides()]
    found = {str(each["weights_sha256"]): str(each.get("model")) for each in summaries if each.get("weights_sha256")}
    if summaries and not found:
        found = _configured(out / "config.yaml")
    others = [f"{name} (weights {weights[:8]})" for weights, name in found.items() if weights != card.weights_sha256]
    if others:
        raise ConfigError(
            f"{out}: it holds results of the model {', '.join(others)}, and {card.name} (weights "
            f"{(card.weights_sha256 or '')[:8]}) is asked for",
            "Name another folder with --out, or overwrite them with --replace.",
        )


def _configured(path: Path) -> dict[str, str]:
    """Return weights and name of the model in a configuration; empty if either is not there."""
    try:
        card = installed_card(str(read_config(path).get("model")))
    except (ConfigError, ModelError):
        return {}
    return {card.weights_sha256 or "": card.name}
