"""Where models are found: a path, the models that ship, or the user's cache."""

from __future__ import annotations

import os
from pathlib import Path

from sampath_wsi.errors import ModelError
from sampath_wsi.model.card import CARD_NAME
from sampath_wsi.model.templates import TEMPLATES

ZOO_DIR = Path(__file__).parent / "zoo"
CACHE_VARIABLE = "SAMPATH_WSI_CACHE"


def cache_dir() -> Path:
    """The folder of downloaded encoders and named models: ``$SAMPATH_WSI_CACHE`` or ``~/.cache/sampath_wsi``."""
    return Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "sampath_wsi")


def known_models() -> list[str]:
    """Names that :func:`resolve_model` knows: what ships, what the cache holds, and the paper's models."""
    return sorted({*installed_models(), *TEMPLATES})


def installed_models() -> list[str]:
    """Names of the models that are here: what ships, and what the cache holds."""
    return sorted({*_bundles_in(ZOO_DIR), *_bundles_in(cache_dir() / "models")})


def resolve_model(name_or_path: str | Path) -> Path:
    """The folder of a model's bundle.

    Parameters
    ----------
    name_or_path
        A folder with a ``card.json``, that card, or a name: of a model that ships, of one in the cache
        (``models/<name>/``), or of one of the paper's models.

    Raises
    ------
    ModelError
        If there is no such model; for the paper's models it says how to get one.
    """
    path = Path(name_or_path)
    if path.name == CARD_NAME and path.is_file():
        return path.parent
    if (path / CARD_NAME).is_file():
        return path
    name = str(name_or_path)
    if name in _bundles_in(ZOO_DIR):
        return ZOO_DIR / name
    if name in _bundles_in(cache_dir() / "models"):
        return cache_dir() / "models" / name
    if name in TEMPLATES:
        raise ModelError(
            f"the weights of '{name}' do not ship and cannot be downloaded",
            f"Train the model, or convert the authors' checkpoint with 'sampath-wsi model convert CHECKPOINT "
            f"{cache_dir() / 'models' / name} --template {name}'.",
        )
    if path.exists():
        raise ModelError(f"{path}: not a model, it holds no {CARD_NAME}", "Name the folder of a model.")
    raise ModelError(
        f"there is no model '{name}'", f"Give the path of a model's folder, or one of {', '.join(known_models())}."
    )


def _bundles_in(folder: Path) -> list[str]:
    return [card.parent.name for card in folder.glob(f"*/{CARD_NAME}")]
