"""A scheduler's SIGTERM: what is in hand is finished, the rest is left to the next run."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


class Stopped(BaseException):
    """Raised in the main thread where SIGTERM came, as KeyboardInterrupt is by Ctrl-C, so that threads end in order."""


def _stop(signal_number: int, frame: FrameType | None) -> NoReturn:
    raise Stopped


@contextmanager
def stoppable() -> Iterator[None]:
    """Within the block SIGTERM raises :class:`Stopped`. Without effect outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def unbroken() -> Iterator[None]:
    """Within a :func:`stoppable` block, a smaller one that SIGTERM does not break off: it counts at its end."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) is not _stop:
        yield
        return
    asked = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, _stop)
    if asked:
        raise Stopped
