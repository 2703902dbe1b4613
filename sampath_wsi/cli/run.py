"""Log, progress and record of a running stage."""

from __future__ import annotations

import logging
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sampath_wsi.errors import one_line
from sampath_wsi.machine.stopping import stoppable
from sampath_wsi.progress import Display, Progress, duration
from sampath_wsi.runs.record import recorded

log = logging.getLogger("sampath_wsi")

given_options: Mapping[str, object] = {}
"""All options of the command that runs, with the defaults of those that were not given (see cli.help)."""


class StageRun:
    """A running stage: collects facts for its record and shows its progress."""

    def __init__(self, stage: str, facts: dict[str, object]) -> None:
        self.stage = stage
        self.facts = facts
        self._display = Display(stage)

    def progress(self, done: int, total: int, what: str = "steps") -> None:
        """Show that ``done`` of ``total`` units are finished; see :class:`sampath_wsi.progress.Progress`."""
        self._display.show(done, total, what)

    def works_with(self, **things: object) -> None:
        """Log the stage's inputs and settings, such as ``model="demo", device="cpu"``."""
        log.info("%s: %s", self.stage, ", ".join(f"{name} {value}" for name, value in things.items()))

    def stop(self) -> None:
        """Take the progress bar away."""
        self._display.stop()


@contextmanager
def shown_progress(what: str) -> Iterator[Progress]:
    """Show the progress of something that is no stage, on a terminal only."""
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    run = StageRun(what, {})
    try:
        yield run.progress
    finally:
        run.stop()


@contextmanager
def stage_run(stage: str, subject: str, record: Path | None) -> Iterator[StageRun]:
    """Log a stage's beginning, input and duration, and keep its record.

    Parameters
    ----------
    subject
        What it works on, for the log.
    record
        Where the record goes; None keeps none.
    """
    _configure_logging()
    _log_beginning(stage, subject)
    begun = time.monotonic()
    try:
        with recorded(stage, record) as facts:
            run = StageRun(stage, facts)
            try:
                with stoppable():
                    yield run
            finally:
                run.stop()
    except BaseException:
        log.error("%s: failed after %s", stage, duration(time.monotonic() - begun))
        raise
    for warning in facts.get("warnings", ()):
        log.warning("%s: warning: %s", stage, warning)
    log.info("%s: finished in %s", stage, duration(time.monotonic() - begun))


def _log_beginning(stage: str, subject: str) -> None:
    from sampath_wsi.machine.facts import describe_system, describe_versions

    log.info("%s: %s", stage, one_line(subject))
    if sys.stderr.isatty():  # who typed the command knows it
        return
    log.info("%s: command: %s", stage, one_line(shlex.join(["sampath-wsi", *sys.argv[1:]])))
    log.info("%s: on %s", stage, describe_system())
    log.info("%s: with %s", stage, describe_versions())
    if given_options:
        shown = ", ".join(f"{name}={value}" for name, value in given_options.items())
        log.info("%s: options: %s", stage, one_line(shown))


class StandardErrorHandler(logging.Handler):
    """Writes to the current standard error: while a bar is shown, above the bar."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr, flush=True)


def _configure_logging() -> None:
    handlers = [StandardErrorHandler()]
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S", handlers=handlers
    )
