"""How a long step tells that it advances."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called with what is done, of how many, and what is counted ("tiles").

    A step with several passes calls it for one after the other. Each begins with what an earlier run had done.
    """

    def __call__(self, done: int, total: int, what: str = "steps", /) -> None: ...


class Step(Protocol):
    """Called with how many more units are done."""

    def __call__(self, more: int = 1, /) -> None: ...


def stepper(progress: Progress | None, total: int, what: str, done: int = 0) -> Step:
    """Begin a pass, which is shown at once, and get the function that advances it."""

    def step(more: int = 1, /) -> None:
        nonlocal done
        done += more
        if progress is not None:
            progress(done, total, what)

    if total:
        step(0)
    return step


def per_time(rate_per_s: float) -> str:
    """A rate in the unit in which it can be imagined."""
    for unit, seconds in (("s", 1), ("min", 60)):
        if rate_per_s * seconds >= 1000:
            return f"{rate_per_s * seconds:,.0f}/{unit}"
        if rate_per_s * seconds >= 1:
            return f"{rate_per_s * seconds:.3g}/{unit}"
    return f"{rate_per_s * 3600:.3g}/h"


def duration(seconds: float) -> str:
    """A time as people say it: ``8.4 s``, ``12 min``, ``3 h 20 min``, ``2 d 4 h``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"
