"""Training of SAM-Path: data, the loop, scoring, experiments. An extra: ``pip install 'sampath-wsi[train]'``."""

from importlib.util import find_spec

from sampath_wsi.errors import ConfigError

# What the extra brings, by the names of the modules.
_EXTRA = ("matplotlib", "tensorboard")


def require_extra() -> None:
    """Check that everything is installed that only trainings and experiments need.

    Raises
    ------
    ConfigError
        Naming what is missing.
    """
    missing = [name for name in _EXTRA if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"trainings need {' and '.join(missing)}, which is not installed here", "pip install 'sampath-wsi[train]'"
        )
