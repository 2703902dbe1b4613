"""A function over many tasks in several processes, with few results waiting at a time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from multiprocessing.context import BaseContext
from typing import TypeVar

from sampath_wsi.errors import SampathError

Task = TypeVar("Task")
Result = TypeVar("Result")


def _context() -> BaseContext:
    """How processes start: forking this one, in which other libraries run threads, could leave a lock closed for ever.

    So they are forked from one that has done nothing but load what they need, once for all.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sampath_wsi.vectorize.outline", "sampath_wsi.vectorize.survey"])
    return context


def _begin_worker() -> None:
    """Leave it to the parent to react to signals that all processes of a job get, and end when it dies."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


class Workers:
    """Worker processes for several passes; with one worker everything runs in this process.

    Parameters
    ----------
    count
        How many processes. A script that asks for more than one must begin its work under
        ``if __name__ == "__main__":``, because every process imports it.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._stack = ExitStack()
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Workers:
        if self.count > 1:
            self._pool = self._stack.enter_context(
                ProcessPoolExecutor(self.count, _context(), initializer=_begin_worker)
            )
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._stack.close()

    def map(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """Results in the order of the tasks, each task begun at most a few places ahead of the result that is taken."""
        if self._pool is None:
            yield from map(function, tasks)
            return
        waiting: deque[Future[Result]] = deque()
        try:
            for task in tasks:
                waiting.append(self._pool.submit(function, task))
                if len(waiting) > 2 * self.count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise SampathError(
                "a worker process ended before its work was done, most likely because memory ran out",
                "Use fewer workers or give the job more memory.",
            ) from error
