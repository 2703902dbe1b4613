"""Training of SAM-Path: data, the loop, scoring, experiments. An extra: ``pip install 'sampath-wsi[train]'``."""

from importlib.util import find_spec

from sampath_wsi.errors import ConfigError


def require_extra() -> None:
    """Check that the packages of the extra are installed; only a training needs them.

    Raises
    ------
    ConfigError
        If it is not.
    """
    if find_spec("tensorboard") is None:
        raise ConfigError("a training needs tensorboard, which is not installed", "pip install 'sampath-wsi[train]'")
