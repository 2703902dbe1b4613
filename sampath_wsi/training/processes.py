"""What the processes of a training run tell each other; a run of one process talks to itself."""

from __future__ import annotations

from typing import Any, TypeVar

from torch import distributed

from sampath_wsi.errors import SampathError

T = TypeVar("T")


def from_every_process(value: T) -> list[T]:
    """The values that all processes give, by rank. Every process must call it, at the same place."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return [value]
    values: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values


def mean_of_processes(value: float) -> float:
    """The mean of a number over all processes; see :func:`from_every_process`."""
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
