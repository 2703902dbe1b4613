"""How a running stage shows that it advances: a bar where a person watches, a line a minute in a log file."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

from sampath_wsi.progress import Pass, duration

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

log = logging.getLogger("sampath_wsi")

_SECONDS_BETWEEN_LINES = 60.0
_BAR_CHARACTERS = 24


class Display(Protocol):
    """Shows the pass that is under way, from its beginning to :meth:`stop`."""

    def show(self, current: Pass) -> None: ...

    def stop(self) -> None: ...


def display(stage: str) -> Display:
    """The display that fits where standard error goes."""
    if int(os.environ.get("LOCAL_RANK", "0")):  # one of several processes of a training: the first one speaks
        return Nothing()
    watched = sys.stderr.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
    return Bar(stage) if watched else Lines(stage)


class Nothing:
    """Shows nothing."""

    def show(self, current: Pass) -> None: ...

    def stop(self) -> None: ...


class Lines:
    """A line a minute, whether the stage advances or not, and one at the end of each pass."""

    def __init__(self, stage: str, every_s: float = _SECONDS_BETWEEN_LINES) -> None:
        self._stage, self._every_s = stage, every_s
        self._begun_s = time.monotonic()
        self._current: Pass | None = None
        self._stopped = threading.Event()
        threading.Thread(target=self._run, name="progress", daemon=True).start()

    def show(self, current: Pass) -> None:
        self._current = current
        if current.done >= current.total:
            self._write()
            self._current = None

    def stop(self) -> None:
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(self._every_s):
            self._write()

    def _write(self) -> None:
        current = self._current
        now = duration(time.monotonic() - self._begun_s)
        log.info("%s: %s", self._stage, current.describe() if current else f"running for {now}")


class Bar:
    """A bar on the terminal, with what is done, rate and remaining time; it pulses while there is nothing to count."""

    def __init__(self, stage: str) -> None:
        self._begun_s = time.monotonic()
        self._current: Pass | None = None
        self._bar = self._build()
        self._task = self._bar.add_task(stage, total=None)
        self._bar.start()

    def _build(self) -> RichProgress:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
        from rich.text import Text

        describe = self._describe

        class Words(ProgressColumn):
            def render(self, task: Any) -> Text:
                return Text(describe(), no_wrap=True, overflow="ellipsis")

        columns = (TextColumn("{task.description}", markup=False), BarColumn(_BAR_CHARACTERS), Words())
        return Progress(*columns, console=Console(stderr=True), transient=True, refresh_per_second=4)

    def _describe(self) -> str:
        current = self._current
        return current.describe() if current else duration(time.monotonic() - self._begun_s)

    def show(self, current: Pass) -> None:
        self._current = current
        self._bar.update(self._task, completed=current.done, total=current.total)

    def stop(self) -> None:
        self._bar.stop()
