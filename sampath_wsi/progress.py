"""Tell and show that a long step advances: a bar where a person watches, else lines in a log."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn
from rich.progress import Progress as Bar
from rich.text import Text

log = logging.getLogger("sampath_wsi")

_SECONDS_BETWEEN_LINES = 60.0
_BAR_CHARACTERS = 24


class Progress(Protocol):
    """A function called with the number done, the total, and the unit ("tiles").

    A step with several passes calls it for one after the other. Each begins with the number done by earlier runs.
    """

    def __call__(self, done: int, total: int, what: str = "steps", /) -> None: ...


class Step(Protocol):
    """A function called with the number of units that were done since the last call."""

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


class Display:
    """Shows one pass after the other, from its beginning to :meth:`stop`.

    On a terminal it is a bar, which pulses while there is nothing to count. Otherwise it is a line a minute, whether
    the stage advances or not, and one at the end of each pass. Of the processes of a training the first one speaks.

    Parameters
    ----------
    stage
        What the bar or the lines begin with.
    rate_from
        So many units must be done before rate and remaining time are worth telling.
    every_s
        Seconds between two lines.
    clock
        The time in seconds, from any beginning.
    """

    def __init__(
        self,
        stage: str,
        *,
        rate_from: int = 0,
        every_s: float = _SECONDS_BETWEEN_LINES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stage, self._rate_from, self._every_s = stage, rate_from, every_s
        self._watched = sys.stderr.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
        self._clock, self._begun_s = clock, clock()
        self._bar = Bar(
            TextColumn("{task.description}", markup=False),
            BarColumn(_BAR_CHARACTERS),
            _Words(self.describe),
            console=Console(stderr=True),
            transient=True,
            refresh_per_second=4,
            # The rate is that of the whole pass: a step may take an hour.
            speed_estimate_period=float("inf"),
            get_time=clock,
            disable=not self._watched,
        )
        self._task = self._bar.add_task(stage, total=None)
        self._bar.start()
        self._stopped = threading.Event()
        if not self._watched:
            threading.Thread(target=self._write_lines, name="progress", daemon=True).start()

    def show(self, done: int, total: int, what: str) -> None:
        """Show that ``done`` of ``total`` units are finished; fewer than before, or of another total, begin a pass.

        Parameters
        ----------
        what
            What is counted, in the plural.
        """
        task = self._bar.tasks[0]
        if task.total != total or done < task.completed:
            added = self._bar.add_task(self._stage, total=total, completed=done, what=what)
            self._bar.remove_task(self._task)
            self._task, task = added, self._bar.tasks[0]
        finished = task.finished
        self._bar.update(self._task, completed=done, what=what)
        if task.finished and not finished and not self._watched:
            self._write_line()

    def describe(self) -> str:
        """Return such as ``12 of 40 tiles, 3.1/s, 9 s left``, or how long it runs while there is nothing to count."""
        task = self._bar.tasks[0]
        if task.total is None:
            return duration(self._clock() - self._begun_s)
        text = f"{task.completed:.0f} of {task.total:.0f} {task.fields['what']}"
        if not task.speed or task.completed < self._rate_from:
            return text
        left = "" if task.finished else f", {duration(task.time_remaining or 0.0)} left"
        return f"{text}, {per_time(task.speed)}{left}"

    def stop(self) -> None:
        """Take the bar away, or write no more lines."""
        self._stopped.set()
        self._bar.stop()

    def _write_lines(self) -> None:
        while not self._stopped.wait(self._every_s):
            task = self._bar.tasks[0]
            if task.total is None or task.finished:
                log.info("%s: running for %s", self._stage, duration(self._clock() - self._begun_s))
            else:
                self._write_line()

    def _write_line(self) -> None:
        log.info("%s: %s", self._stage, self.describe())


class _Words(ProgressColumn):
    """The part of the bar that is written out."""

    def __init__(self, describe: Callable[[], str]) -> None:
        super().__init__()
        self._describe = describe

    def render(self, task: Task) -> Text:
        return Text(self._describe(), no_wrap=True, overflow="ellipsis")


def per_time(rate_per_s: float) -> str:
    """Write a rate in the unit in which it can be imagined: ``3.1/s``, ``30/min``, ``3.6/h``."""
    for unit, seconds in (("s", 1), ("min", 60)):
        if rate_per_s * seconds >= 1000:
            return f"{rate_per_s * seconds:,.0f}/{unit}"
        if rate_per_s * seconds >= 1:
            return f"{rate_per_s * seconds:.3g}/{unit}"
    return f"{rate_per_s * 3600:.3g}/h"


def duration(seconds: float) -> str:
    """Write a time as people say it: ``8.4 s``, ``12 min``, ``3 h 20 min``, ``2 d 4 h``."""
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
