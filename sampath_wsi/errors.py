"""The errors that a user can cause or meet: one line each with the problem, its place and the remedy.

The command line prints such an error as that one line and exits with :attr:`SampathError.exit_code`; a
traceback appears only with ``--debug``. Every other exception is a defect of this program.
"""

from __future__ import annotations

_LONGEST = 2000


def one_line(text: str) -> str:
    """Return a text as one line of bounded length that shows every character.

    What files contain and are called gets into messages: it must not move a terminal's cursor, fill a log, or break a
    table.
    """
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(text.split()))
    # The end is kept as well: that is where the remedy stands.
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 500]} ... {shown[-490:]}"


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
        super().__init__(one_line(f"{message.rstrip('.')}. {remedy}" if remedy else message))


class SlideError(SampathError, OSError):
    """A slide that cannot be opened or read, or lacks metadata that are needed."""


class ConfigError(SampathError, ValueError):
    """A configuration, sample sheet or command line that does not make sense."""


class StoreError(SampathError, OSError):
    """A store that is missing, unfinished, damaged, or not made as asked for."""


class ModelError(SampathError, ValueError):
    """A model bundle, card or checkpoint that cannot be used."""


class AnnotationError(SampathError, ValueError):
    """Annotations (GeoJSON, mask images) that cannot be used."""


class DataError(SampathError, ValueError):
    """Training data that are missing, inconsistent or empty."""
