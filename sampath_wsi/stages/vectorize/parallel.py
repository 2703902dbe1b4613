"""A function over many tasks in several processes, with few results waiting at a time."""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from typing import TypeVar, cast

from sampath_wsi.errors import SampathError

Task = TypeVar("Task")
Result = TypeVar("Result")

_SIGNALS_OF_A_JOB = (signal.SIGINT, signal.SIGTERM)


def _context() -> BaseContext:
    """How processes start: forking this one, in which other libraries run threads, could leave a lock closed for ever.

    So they are forked from one that has done nothing but load what they need, once for all. It is started with the
    signals blocked that all processes of a job get, and what it forks inherits that: only this process reacts to them.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sampath_wsi.stages.vectorize.outline", "sampath_wsi.stages.vectorize.survey"])
    resource_tracker.ensure_running()  # by itself first: starting it unblocks the signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS_OF_A_JOB)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


def _work(connection: Connection) -> None:
    """Answer calls until the connection closes, as it does when the process at its other end dies."""
    for each in _SIGNALS_OF_A_JOB:  # where they could not be blocked from the start
        signal.signal(each, signal.SIG_IGN)
    with suppress(EOFError, OSError):
        while True:
            function, task = connection.recv()
            answer: tuple[object, Exception | None]
            try:
                answer = (function(task), None)
            except Exception as error:
                error.add_note(traceback.format_exc())
                answer = (None, error)
            connection.send(answer)


class Workers:
    """Worker processes for several passes; with one worker everything runs in this process.

    Each has a connection of its own, so whatever moment one dies at, the others and this process learn of it; the
    standard library's executor shares queues among its workers, and waits for ever if one dies while it holds them.

    Parameters
    ----------
    count
        How many processes. A script that asks for more than one must begin its work under
        ``if __name__ == "__main__":``, because every process imports it.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._processes: list[BaseProcess] = []
        self._connections: list[Connection] = []
        self._idle: SimpleQueue[Connection] = SimpleQueue()

    def __enter__(self) -> Workers:
        if self.count > 1:
            try:
                self._start(_context())
            except BaseException:
                self._end()
                raise
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    def _start(self, context: BaseContext) -> None:
        for _ in range(self.count):
            ours, theirs = context.Pipe()
            self._connections.append(ours)
            # mypy does not know that every context has this class.
            process: BaseProcess = context.Process(target=_work, args=(theirs,), daemon=True)  # type: ignore[attr-defined]
            self._processes.append(process)
            process.start()
            theirs.close()
            self._idle.put(ours)

    def _end(self) -> None:
        """Kill what may be in the middle of a task that nobody waits for any more."""
        for process in self._processes:
            if process.pid is not None:
                process.kill()
                process.join()
        for connection in self._connections:
            connection.close()

    def _call(self, function: Callable[[Task], Result], task: Task) -> Result:
        connection = self._idle.get()
        try:
            connection.send((function, task))
            result, error = connection.recv()
        except (EOFError, OSError) as gone:
            raise SampathError(
                "a worker process ended before its work was done, most likely because memory ran out",
                "Use fewer workers or give the job more memory.",
            ) from gone
        finally:
            self._idle.put(connection)  # of a dead worker too: whoever is next must not wait for it
        if error is not None:
            raise error
        return cast(Result, result)

    def map(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """Results in the order of the tasks, each task begun at most a few places ahead of the result that is taken."""
        if not self._processes:
            yield from map(function, tasks)
            return
        waiting: deque[Future[Result]] = deque()
        callers = ThreadPoolExecutor(self.count, "vectorize")
        try:
            for task in tasks:
                waiting.append(callers.submit(self._call, function, task))
                if len(waiting) > 2 * self.count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            callers.shutdown(wait=False, cancel_futures=True)
