"""Snakemake as a process of its own, which ends in order with the process that started it."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from sampath_wsi.errors import StoreError
from sampath_wsi.files import open_alone
from sampath_wsi.machine.stopping import Stopped

_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_JOBS_END_S = 60.0


@contextmanager
def held_folder(out: Path) -> Iterator[int]:
    """Hold an output folder until the block ends and Snakemake with it; yields the open lock file.

    Raises
    ------
    StoreError
        If another run works there, or its results were made by Snakemake from another folder.
    """
    memory = out / ".snakemake"
    if (out / "slides").is_dir() and not memory.is_dir():
        raise StoreError(
            f"{out}: these results were made by `snakemake` from another folder, which alone knows with which options",
            "Go on with them there, or give another --out.",
        )
    lock = open_alone(memory / "sampath-wsi.lock", out)
    try:
        os.ftruncate(lock, 0)
        os.write(lock, f" process {os.getpid()} on {platform.node()}\n".encode())
        yield lock
    finally:
        os.close(lock)


def run_snakemake(
    command: Sequence[str], environment: Mapping[str, str], *, lock: int | None = None, silent: bool = False
) -> int:
    """Run Snakemake to its end; returns its exit code.

    Ctrl-C, SIGTERM and SIGHUP are passed on, once, to Snakemake and its jobs; this process waits until they have ended.

    Parameters
    ----------
    lock
        A file that stays open as long as Snakemake lives, even if this process is killed.
    silent
        Whether its standard output is dropped.

    Raises
    ------
    KeyboardInterrupt, Stopped
        If it ended so.
    """
    received: list[int] = []
    with subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL if silent else None,
        pass_fds=() if lock is None else (lock,),
        # A group of its own, so that a signal reaches its jobs from here, and only from here.
        process_group=0,
    ) as process:

        def forward(number: int, frame: FrameType | None) -> None:
            received.append(number)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM if number == signal.SIGHUP else number)

        before = {number: signal.getsignal(number) for number in _FORWARDED}
        try:
            for number, handler in before.items():
                if handler != signal.SIG_IGN:
                    signal.signal(number, forward)
            code = process.wait()
            if received:
                _wait_for_group(process.pid)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    if received:
        raise KeyboardInterrupt if received[0] == signal.SIGINT else Stopped
    return code


def _wait_for_group(group: int) -> None:
    """Wait for jobs that outlive Snakemake, but not for ever: a zombie stays in its group."""
    until = time.monotonic() + _JOBS_END_S
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
