"""A process that has loaded the package and forks a child for every command line; run as a script.

So a test can kill a stage at many moments without starting as many interpreters. It must run with
``OMP_NUM_THREADS=1``: a child does not have the threads of the process that it was forked from. A request is a line of
JSON ``[arguments, moment of SIGKILL, log]``, its answer ``[exit code (negative: the signal), seconds]``. The moment is
a number of seconds; or ``[journal, lines, seconds]``: so long after the journal of a store has so many lines; or null.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import sampath_wsi.machine.facts
import sampath_wsi.model.ready
import sampath_wsi.pipeline
import sampath_wsi.runs.sheet
import sampath_wsi.stages.infer.predictor
import sampath_wsi.stages.infer.stage
import sampath_wsi.stages.stitch.stage
import sampath_wsi.stages.tile
import sampath_wsi.stages.vectorize  # noqa: F401
from sampath_wsi.cli import main
from sampath_wsi.cli.run import StageRun
from sampath_wsi.model.bundle import load_bundle


def child(arguments: list[str], log: str) -> None:
    """Be the command line."""
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    # Every step, where the command line shows one a minute.
    StageRun.progress = lambda _, done, *__: os.write(2, f"progress {done}\n".encode())  # type: ignore
    sys.argv = ["sampath-wsi", *arguments]
    main()


def wait_for(moment: float | list[Any], pid: int) -> None:
    """Wait for the moment at which a child is to be killed, or for its end."""
    seconds = moment
    if isinstance(moment, list):
        journal, lines, seconds = Path(moment[0]), moment[1], moment[2]
        while not (journal.exists() and journal.read_bytes().count(b"\n") >= lines):
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                return
            time.sleep(0.0005)
    time.sleep(seconds)


def serve() -> None:
    """Answer requests until there are no more."""
    load_bundle("demo")  # and with it what a model imports when it is built
    gc.freeze()
    for line in sys.stdin:
        arguments, moment, log = json.loads(line)
        begun = time.monotonic()
        if (pid := os.fork()) == 0:
            try:
                child(arguments, log)
            except SystemExit as end:
                os._exit(int(end.code or 0))  # taking torch apart takes longer than a stage
        if moment is not None:
            wait_for(moment, pid)
            os.kill(pid, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(json.dumps([code, time.monotonic() - begun]), flush=True)


if __name__ == "__main__":
    serve()
