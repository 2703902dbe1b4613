"""Dask's tasks on threads of this process, or on the workers of a distributed scheduler.

Tasks write their results themselves and return nothing, so that only what is in work is in memory. Workers need this
package, in the same versions, and the files at the same paths.
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
# Packages whose versions decide about the bytes of a result.
_SAME = ("sampath-wsi", "numpy", "numcodecs", "zarr")

Call = tuple[Any, ...]
"""A function and its arguments after the first."""


def compute(
    subject: object, calls: Sequence[Call], done: Callable[[], None], threads: int, client: Client | None
) -> None:
    """Make calls in any order, each as ``function(subject, *arguments)``; the first that fails ends the rest.

    Parameters
    ----------
    subject
        Sent to workers once.
    done
        Called after each.
    threads
        How many, where there is no client.
    client
        Of a scheduler; see :func:`connected`.

    Raises
    ------
    StoreError
        If the scheduler or too many workers end meanwhile. Errors of the calls are raised as they are.
    """
    from dask.base import compute as dask_compute
    from dask.callbacks import Callback
    from dask.delayed import delayed
    from dask.threaded import get

    shared = subject if client is None else delayed(subject, pure=False, traverse=False)
    tasks = [delayed(function, pure=False, traverse=False)(shared, *arguments) for function, *arguments in calls]
    if client is not None:
        _compute_on_workers(client, tasks, done)
        return
    # The function, not its name "threads": to look up a name, Dask imports distributed.
    with Callback(posttask=lambda *_: done()):
        dask_compute(tasks, scheduler=get, num_workers=threads)


def _compute_on_workers(client: Client, tasks: Sequence[Any], done: Callable[[], None]) -> None:
    from distributed import as_completed
    from distributed.client import FutureCancelledError
    from distributed.comm.core import CommClosedError
    from distributed.scheduler import KilledWorker

    address, futures = client.scheduler.address if client.scheduler else "", []
    try:
        futures = client.compute(tasks)
        for future in as_completed(futures):
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


@contextmanager
def connected(address: str | None) -> Iterator[Client | None]:
    """Yield a client of the scheduler at an address (``tcp://host:8786``), Dask's default within; None without one.

    Raises
    ------
    ConfigError
        If there is no such scheduler, or it has no workers, or they have other versions.
    """
    if address is None:
        yield None
        return
    try:
        from distributed import Client
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"dask '{address}': Dask's distributed scheduler is not installed here", "pip install 'sampath-wsi[dask]'"
        ) from error
    for handler in logging.getLogger("distributed").handlers:
        handler.setLevel(logging.CRITICAL)  # it logs tracebacks; problems are raised as errors anyway
    with warnings.catch_warnings():
        # About versions, which are checked below, and about the size of the shared object, which is the tissue mask.
        warnings.simplefilter("ignore")
        try:
            client = Client(address, timeout=_CONNECT_S)
        except Exception as error:  # talking to something else than such a scheduler raises errors of any kind
            raise ConfigError(
                f"dask '{address}': no Dask scheduler answers there ({error or type(error).__name__})",
                "Start one with 'dask scheduler', or leave 'dask' out to compute on this machine.",
            ) from error
        with client:
            _check_workers(client, address)
            yield client


def _check_workers(client: Client, address: str) -> None:
    """Check that there are workers, with the needed packages."""
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
