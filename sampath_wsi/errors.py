"""The errors that a user can cause or meet: one line each that says what, where and what to do.

The command line prints such an error as that one line and exits with :attr:`SampathError.exit_code`; a
traceback appears only with ``--debug``. Every other exception is a defect of this program.
"""

from __future__ import annotations


class SampathError(Exception):
    """Base of all errors that are reported to the user as one line.

    Parameters
    ----------
    message
        What happened and where (slide, tile, key of the configuration), in one line.
    remedy
        What the user can do about it, as an imperative.
    """

    exit_code = 2

    def __init__(self, message: str, remedy: str = "") -> None:
        text = f"{message.rstrip('.')}. {remedy}" if remedy else message
        super().__init__(" ".join(text.split()))


class SlideError(SampathError, OSError):
    """A slide cannot be opened or read, or does not say what is needed of it."""


class ConfigError(SampathError, ValueError):
    """A configuration, sample sheet or command line that does not make sense."""


class StoreError(SampathError, OSError):
    """A store that is missing, unfinished, damaged, or made by something else than what was asked for."""


class ModelError(SampathError, ValueError):
    """A model bundle, card or checkpoint that cannot be used."""


class AnnotationError(SampathError, ValueError):
    """Annotations (GeoJSON, mask images) that cannot be used."""


class DataError(SampathError, ValueError):
    """Training data that are missing, inconsistent or empty."""
