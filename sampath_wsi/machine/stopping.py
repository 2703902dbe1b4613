"""A scheduler's SIGTERM, and Ctrl-C: what is in hand is finished, the rest is left to the next run."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_AGAIN_S = 0.05


class Stopped(BaseException):
    """Raised in the main thread where SIGTERM came, as KeyboardInterrupt is by Ctrl-C, so that threads end in order."""


def _stop(number: int, frame: FrameType | None) -> None:
    if _imports(frame):
        # Not now: some modules answer whatever is raised amid their import with an error of their own, or go on.
        again = threading.Timer(_AGAIN_S, os.kill, (os.getpid(), number))
        again.daemon = True
        again.start()
        return
    raise KeyboardInterrupt if number == signal.SIGINT else Stopped


def _imports(frame: FrameType | None) -> bool:
    """Whether a module is being imported."""
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


@contextmanager
def stoppable() -> Iterator[None]:
    """Within the block SIGTERM raises :class:`Stopped`, and Ctrl-C KeyboardInterrupt, but not amid an import.

    Without effect outside the main thread, and on a Ctrl-C that the process ignores or handles otherwise.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, _stop)}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        before[signal.SIGINT] = signal.signal(signal.SIGINT, _stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
