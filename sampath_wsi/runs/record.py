"""The record of a stage: a small JSON file (``run/STAGE.json`` beside a slide's results).

It says ``running`` from the first moment, then ``ok`` with what was done, or ``failed`` with the reason, so that the
cohort's table can tell what became of each slide. It is no output of the workflow: Snakemake deletes the outputs of
failed jobs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sampath_wsi.errors import SampathError, one_line
from sampath_wsi.files import write_json
from sampath_wsi.machine.stopping import Stopped

log = logging.getLogger(__name__)


@contextmanager
def recorded(stage: str, record: Path | None) -> Iterator[dict[str, Any]]:
    """Keep the record of a stage; the block fills in the facts that it yields.

    Parameters
    ----------
    record
        Where the record goes; None keeps none.
    """
    begun = time.monotonic()
    facts: dict[str, object] = {}
    if record is not None:
        write_json(record, {"stage": stage, "status": "running"})
    try:
        yield facts
    except BaseException as error:
        if record is not None:
            _try_write(
                record, {"stage": stage, "status": "failed", "error": reason_of(error), "seconds": _since(begun)}
            )
        raise
    if record is not None:
        write_json(record, {"stage": stage, "status": "ok", "seconds": _since(begun), **facts})


def reason_of(error: BaseException) -> str:
    """Return the reason why a stage ended, in one line."""
    if isinstance(error, SampathError):
        return str(error)
    if isinstance(error, Stopped):
        return "stopped by SIGTERM"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, MemoryError):
        return "out of memory"
    return one_line(f"{type(error).__name__}: {error}")


def _since(begun_s: float) -> float:
    return round(time.monotonic() - begun_s, 3)


def _try_write(record: Path, value: dict[str, object]) -> None:
    try:
        write_json(record, value)
    except OSError as error:  # the disk is full, say: the first error is the one to report
        log.warning("cannot write the record %s: %s", record, error)
