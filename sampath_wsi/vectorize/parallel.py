"""A function over many tasks in several processes, with few results waiting at a time."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from typing import TypeVar

from sampath_wsi.errors import SampathError

Task = TypeVar("Task")
Result = TypeVar("Result")


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
            # Forking a process in which other libraries run threads can leave a lock closed for ever.
            context = multiprocessing.get_context("spawn")
            self._pool = self._stack.enter_context(ProcessPoolExecutor(self.count, mp_context=context))
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
