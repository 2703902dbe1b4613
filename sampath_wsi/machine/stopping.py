"""SIGTERM (from a scheduler) and Ctrl-C: a stage finishes the work in hand and leaves the rest to the next run."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_AGAIN_S = 0.05


class Stopped(BaseException):
    """Raised in the main thread by SIGTERM, as KeyboardInterrupt is by Ctrl-C, so that threads end in order."""


def _stop(number: int, frame: FrameType | None) -> None:
    if _imports(frame):
        # Not now: some modules turn exceptions during their import into an error of their own, or ignore them.
        again = threading.Timer(_AGAIN_S, os.kill, (os.getpid(), number))
        again.daemon = True
        again.start()
        return
    raise KeyboardInterrupt if number == signal.SIGINT else Stopped


def _imports(frame: FrameType | None) -> bool:
    """Return whether a module is being imported."""
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


@contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGTERM raise :class:`Stopped` within the block, and Ctrl-C KeyboardInterrupt, but not during an import.

    It does nothing outside the main thread, nor about a Ctrl-C that the process ignores or handles otherwise.
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
def deferring_stop() -> Iterator[None]:
    """Put off :class:`Stopped` to the end of this block, which is part of a :func:`stoppable` one."""
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
