"""Where Dask computes: on threads of this process, or on the workers of a distributed scheduler.

Workers of a scheduler write results where they belong themselves: they need this package, in the same versions, and
the files at the same paths. What they return is nothing, so that only what is in work is in anybody's memory.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from sampath_wsi.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from distributed import Client

_CONNECT_S = 15.0
_WAIT_FOR_WORKERS_S = 120.0
# What the bytes of a result depend on.
_SAME = ("sampath-wsi", "numpy", "numcodecs", "zarr")

Call = tuple[Any, ...]
"""A function and its arguments after the first."""

Pool = Callable[[Any, Sequence[Call], Callable[[], None]], None]
"""Called with an object, calls ``(function, *arguments)``, and what to do after each: makes all of them, in any order,
as ``function(object, *arguments)``. The first that fails ends the rest, and its error comes out."""


@contextmanager
def dask_pool(address: str | None, threads: int) -> Iterator[Pool]:
    """A pool to compute on.

    Parameters
    ----------
    address
        Of a scheduler (``tcp://host:8786``); None for threads of this process.
    threads
        How many, without a scheduler.

    Raises
    ------
    ConfigError
        If there is no such scheduler, or it has no workers, or they have other versions.
    StoreError
        From the pool: if the scheduler or too many workers end meanwhile.
    """
    if address is None:
        yield _on_threads(threads)
        return
    with _connected(address) as client:
        _check_workers(client, address)
        yield _on_workers(client, address)


def _on_threads(threads: int) -> Pool:
    import dask
    from dask.base import compute
    from dask.callbacks import Callback
    from dask.delayed import delayed
    from dask.threaded import get

    def run(subject: Any, calls: Sequence[Call], done: Callable[[], None]) -> None:
        tasks = [delayed(function, traverse=False)(subject, *arguments) for function, *arguments in calls]
        with (
            # The function, not its name "threads": to look up a name, Dask imports distributed.
            dask.config.set(scheduler=get, num_workers=threads),
            Callback(posttask=lambda *_: done()),
        ):
            compute(tasks)

    return run


def _on_workers(client: Client, address: str) -> Pool:
    from distributed import as_completed
    from distributed.client import FutureCancelledError
    from distributed.comm.core import CommClosedError
    from distributed.scheduler import KilledWorker

    def run(subject: Any, calls: Sequence[Call], done: Callable[[], None]) -> None:
        futures: list[Any] = []
        try:
            # Sent once and passed on from worker to worker; unlike scattered data it outlives the worker that has it.
            shared = client.submit(_itself, subject, pure=False)
            futures += [client.submit(function, shared, *arguments, pure=False) for function, *arguments in calls]
            for future in as_completed(futures, loop=client.loop):
                future.result()
                done()
        except KilledWorker as error:
            raise StoreError(
                f"dask '{address}': one block ended {error.allowed_failures + 1} workers, one after the other",
                "Their logs say why; give workers more memory, or fewer threads.",
            ) from error
        except (FutureCancelledError, CommClosedError, TimeoutError) as error:
            raise StoreError(f"dask '{address}': the connection to the scheduler was lost", "Run again.") from error
        finally:
            client.cancel(futures)

    return run


def _itself(value: Any) -> Any:
    return value


@contextmanager
def _connected(address: str) -> Iterator[Client]:
    try:
        from distributed import Client
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"dask '{address}': Dask's distributed scheduler is not installed here", "pip install 'sampath-wsi[dask]'"
        ) from error
    for handler in logging.getLogger("distributed").handlers:
        handler.setLevel(logging.CRITICAL)  # it logs tracebacks; what goes wrong comes out as an error
    with warnings.catch_warnings():
        # About versions, which are checked below, and about the size of what is shared, which is a mask of the tissue.
        warnings.simplefilter("ignore")
        try:
            client = Client(address, timeout=_CONNECT_S, set_as_default=False)
        except Exception as error:  # whatever comes from talking to something else than such a scheduler
            raise ConfigError(
                f"dask '{address}': no Dask scheduler answers there ({error or type(error).__name__})",
                "Start one with 'dask scheduler', or leave 'dask' out to compute on this machine.",
            ) from error
        with client:
            yield client


def _check_workers(client: Client, address: str) -> None:
    """Check that there are workers, and that they have what is needed."""
    try:
        client.wait_for_workers(1, timeout=_WAIT_FOR_WORKERS_S)
    except TimeoutError as error:
        raise ConfigError(
            f"dask '{address}': the scheduler has had no worker for {_WAIT_FOR_WORKERS_S:.0f} s",
            f"Start some with 'dask worker {address}'.",
        ) from error
    expected = {name: version(name) for name in (*_SAME, "dask", "distributed")}
    versions: Any = client.get_versions(packages=list(_SAME))
    for worker, found in versions["workers"].items():
        for name, wanted in expected.items():
            if (there := found["packages"].get(name)) != wanted:
                raise ConfigError(
                    f"dask '{address}': the worker {worker} has {name} {there or 'not installed'}, not {wanted}",
                    "Install the same versions on all workers (envs/constraints.txt).",
                )
