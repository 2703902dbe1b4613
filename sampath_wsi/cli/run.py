"""What surrounds every stage: log, progress, and a record of how it went.

A record is a small JSON file (``run/STAGE.json`` beside a slide's results). It says ``running`` from the first moment,
then ``ok`` with what was done, or ``failed`` with the reason, so that the cohort's table can tell what became of each
slide. It is no output of the workflow: Snakemake deletes the outputs of failed jobs.
"""

from __future__ import annotations

import logging
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from sampath_wsi import __version__
from sampath_wsi.errors import SampathError, one_line
from sampath_wsi.files import write_json
from sampath_wsi.stopping import Stopped, stoppable

log = logging.getLogger("sampath_wsi")

_SECONDS_BETWEEN_LINES = 60.0


class StageRun:
    """A running stage: collects facts for its record and shows its progress."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.facts: dict[str, Any] = {}
        self._last_line = self._begun = time.monotonic()
        self._bar: Any = None

    def progress(self, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` units are finished: a bar for a person, a line a minute for a log."""
        if sys.stderr.isatty():
            self._show_bar(done, total)
            return
        now = time.monotonic()
        if now - self._last_line >= _SECONDS_BETWEEN_LINES or done == total:
            self._last_line = now
            rate = done / max(now - self._begun, 1e-9)
            log.info(
                "%s: %d of %d (%.3g/s, %.0f s left)", self.stage, done, total, rate, (total - done) / max(rate, 1e-9)
            )

    def _show_bar(self, done: int, total: int) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn(self.stage), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.add_task(self.stage, total=total)
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=done, total=total)

    def stop(self) -> None:
        """Take the progress bar away."""
        if self._bar is not None:
            self._bar.stop()


@contextmanager
def stage_run(stage: str, subject: str, record: Path | None, *, stops: bool = True) -> Iterator[StageRun]:
    """Log the begin and end of a stage, and keep its record.

    Parameters
    ----------
    subject
        What it works on, for the log.
    record
        Where the record goes; None keeps none.
    stops
        Whether SIGTERM ends the stage in order (see :mod:`sampath_wsi.stopping`); False leaves it to the stage.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S")
    log.info(
        "%s: %s (sampath-wsi %s, Python %s on %s)",
        stage,
        subject,
        __version__,
        platform.python_version(),
        platform.node(),
    )
    run = StageRun(stage)
    begun = time.monotonic()
    _write(record, {"stage": stage, "status": "running"})
    try:
        with stoppable() if stops else nullcontext():
            yield run
    except BaseException as error:
        run.stop()
        _try_write(record, {"stage": stage, "status": "failed", "error": _reason(error)})
        raise
    run.stop()
    seconds = round(time.monotonic() - begun, 3)
    for warning in run.facts.get("warnings", ()):
        log.warning("%s: warning: %s", stage, warning)
    _write(record, {"stage": stage, "status": "ok", "seconds": seconds, **run.facts})
    log.info("%s: finished in %.1f s", stage, seconds)


def _reason(error: BaseException) -> str:
    if isinstance(error, SampathError):
        return str(error)
    if isinstance(error, Stopped):
        return "stopped by SIGTERM"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, MemoryError):
        return "out of memory"
    return one_line(f"{type(error).__name__}: {error}")


def _write(record: Path | None, value: dict[str, Any]) -> None:
    if record is not None:
        write_json(record, value)


def _try_write(record: Path | None, value: dict[str, Any]) -> None:
    try:
        _write(record, value)
    except OSError as error:  # the disk is full, say: the first error is the one to report
        log.warning("cannot write the record %s: %s", record, error)
