"""The processes of a training run, one a device: their start, communication and end."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed

from sampath_wsi.errors import ConfigError, SampathError
from sampath_wsi.machine.device import leased_device, leased_gpus

T = TypeVar("T")
Work = Callable[[int, torch.device], None]
"""The work of a process, given its number (rank) and its device; it can be pickled."""

_HERE = "127.0.0.1"
_TIMEOUT = timedelta(minutes=30)
# Within this time a process notices by itself that another is dead, unless it waits for it on a GPU.
_NOTICED_S = 60.0
_BEGIN = "from sampath_wsi.training.processes import _take_part; _take_part()"

log = logging.getLogger(__name__)


@contextmanager
def held_devices(request: str, count: int) -> Iterator[list[torch.device]]:
    """Choose ``count`` devices of the kind that is asked for; GPUs are kept from other jobs until the block ends.

    Raises
    ------
    ConfigError
        If there are no such devices.
    """
    if count == 1:
        with leased_device(request) as device:
            yield [device]
    elif request in ("auto", "cuda"):
        with leased_gpus(count) as held:
            yield [torch.device("cuda", index) for index in held]
    elif request == "cpu":
        yield [torch.device("cpu")] * count
    else:
        raise ConfigError(f"device '{request}' cannot be used {count} times", "Use auto, cuda or cpu.")


@contextmanager
def processes_beside(devices: Sequence[torch.device], work: Work) -> Iterator[None]:
    """Let a process for every device but the first do the work; within the block, this is the process of the first.

    No process outlives the block, or this process. Of an error that all have (see :func:`raise_everywhere`) this one
    alone tells.

    Raises
    ------
    ConfigError
        If another process died.
    """
    if len(devices) == 1:
        yield
        return
    store = _store(len(devices))
    closed, children = threading.Event(), list[subprocess.Popen[bytes]]()

    def end_children() -> None:
        closed.set()
        for child in children:
            child.kill()
            child.communicate()

    try:
        for rank in range(1, len(devices)):
            # It finds the same program as this process, and in a session of its own no Ctrl-C reaches it.
            command = [sys.executable, "-P", "-c", f"import sys; sys.path = {sys.path}; {_BEGIN}"]
            child = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
            children.append(child)
            assert child.stdin is not None
            pickle.dump((rank, list(devices), store.port, work), child.stdin)
            child.stdin.flush()
            threading.Thread(target=_watch, args=(child, rank, closed), daemon=True).start()
        with _joined(0, devices, store):
            try:
                yield
            except BaseException as error:
                deaths = map(_death_of, children, range(1, len(devices))) if isinstance(error, RuntimeError) else ()
                found = next(filter(None, deaths), "")
                # Before this process leaves the group, which they would take for an error.
                end_children()
                if found:
                    raise ConfigError(found, "Look at what it said above; --resume goes on.") from error
                raise
    finally:
        end_children()


def _watch(child: subprocess.Popen[bytes], rank: int, closed: threading.Event) -> None:
    """End this process where it waits on its GPU for one that is dead: nothing else can interrupt that."""
    if child.wait() and not closed.wait(_NOTICED_S):
        log.error("%s; this process cannot go on", _death_of(child, rank))
        os._exit(2)


def _death_of(child: subprocess.Popen[bytes], rank: int) -> str:
    """Say how a process died; empty if it did not."""
    try:
        code = child.wait(timeout=1)
    except subprocess.TimeoutExpired:
        return ""
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return f"process {rank} of the training {how}" if code else ""


def _take_part() -> None:
    """Run in a process that :func:`processes_beside` has started."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # this process ends with the first one
    rank, devices, port, work = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.disable(logging.WARNING)
    with _joined(rank, devices, _store(len(devices), port)):
        try:
            work(rank, devices[rank])
        except SampathError:
            sys.exit(SampathError.exit_code)


def _end_with_parent() -> None:
    os.read(0, 1)
    os._exit(1)


def _store(processes: int, port: int = 0) -> Any:
    """Open the place where processes meet, or a new one."""
    new = port == 0
    return distributed.TCPStore(  # type: ignore[attr-defined]
        _HERE, port, processes, is_master=new, wait_for_workers=False, timeout=_TIMEOUT
    )


@contextmanager
def _joined(rank: int, devices: Sequence[torch.device], store: Any) -> Iterator[None]:
    """Join a group of processes for the block; they exchange numbers and objects on the CPU, tensors on GPUs."""
    if cuda := devices[rank].type == "cuda":
        torch.cuda.set_device(devices[rank])
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    distributed.init_process_group(backend, store=store, rank=rank, world_size=len(devices), timeout=_TIMEOUT)
    try:
        with warnings.catch_warnings():
            # torch's advice about dimensions of one element.
            warnings.filterwarnings("ignore", "Grad strides do not match")
            yield
    finally:
        distributed.destroy_process_group()


def from_every_process(value: T) -> list[T]:
    """Return the values that all processes give, by rank. Every process must call it, at the same place."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return [value]
    values: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values


def mean_of_processes(value: float) -> float:
    """Return the mean of a number over all processes; see :func:`from_every_process`."""
    values = from_every_process(value)
    return sum(values) / len(values)


def raise_everywhere(problem: SampathError | None) -> None:
    """Raise the first problem that any process has, in all of them: none waits for one that has stopped.

    Raises
    ------
    SampathError
        The problem.
    """
    first = next((found for found in from_every_process(problem) if found is not None), None)
    if first is not None:
        raise first
