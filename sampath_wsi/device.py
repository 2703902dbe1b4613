"""Which device computes, at which precision, and how jobs on one machine keep off each other's GPUs."""

from __future__ import annotations

import fcntl
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sampath_wsi.errors import ConfigError

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

Precision = Literal["fp32", "bf16", "fp16"]
_POLL_S = 2.0


@contextmanager
def leased_device(request: str = "auto") -> Iterator[torch.device]:
    """The best device there is; a GPU is held by a lock until the block ends or the process dies.

    Parameters
    ----------
    request
        ``auto`` (a free CUDA device, else Apple's MPS, else the CPU), ``cuda`` (any free one), or a device by name
        (``cuda:1``, ``cpu``, ``mps``).

    Raises
    ------
    ConfigError
        If the device that was asked for does not exist.
    """
    import torch

    kind, _, index = request.partition(":")
    if kind not in ("auto", "cuda", "mps", "cpu") or (index and not index.isdigit()):
        raise ConfigError(f"device '{request}' is unknown", "Use auto, cpu, cuda, cuda:N or mps.")
    count = torch.cuda.device_count()
    if kind == "cuda" and (count == 0 or (index and int(index) >= count)):
        raise ConfigError(
            f"device '{request}': torch {torch.__version__} sees {count} CUDA devices", "Use device: auto."
        )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device 'mps': not available on this machine", "Use device: auto.")
    if kind in ("auto", "cuda") and count:
        candidates = [int(index)] if index else list(range(count))
        names = [str(torch.cuda.get_device_properties(i).uuid) for i in candidates]
        with lease(names) as position:
            yield torch.device("cuda", candidates[position])
    elif kind in ("auto", "mps") and torch.backends.mps.is_available():
        yield torch.device("mps")
    else:
        yield torch.device("cpu")


@contextmanager
def lease(names: Sequence[str], folder: Path | None = None) -> Iterator[int]:
    """Hold one of several named things that processes of this machine share; waits until one is free.

    Parameters
    ----------
    names
        Machine-wide names, in order of preference.
    folder
        Where the lock files lie; by default one a user in the temporary directory.

    Yields
    ------
    The position in ``names`` of the one that is held.
    """
    folder = folder or Path(tempfile.gettempdir()) / f"sampath_wsi-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    waited = False
    while True:
        for position, name in enumerate(names):
            lock = os.open(folder / f"{name}.lock", os.O_CREAT | os.O_RDWR, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                continue
            try:
                yield position
            finally:
                os.close(lock)  # closing frees the lock
            return
        if not waited:
            log.info("all %d devices are in use by other jobs of this machine; waiting", len(names))
            waited = True
        time.sleep(_POLL_S)


def choose_precision(request: str, device: torch.device) -> Precision:
    """The precision of the encoders (neck and decoder always compute in fp32).

    ``auto`` is fp16 where the hardware multiplies it several times as fast as fp32 (CUDA, CPUs with AMX for fp16), and
    fp32 elsewhere. Rounding to fp16 changes a few labels in 10,000, to bf16 a few in 1,000 (`benchmarks/forward.py`);
    fp16's narrower range is minded by :class:`sampath_wsi.predictor.Predictor`.

    Raises
    ------
    ConfigError
        If the precision is unknown.
    """
    import torch

    if request in ("fp32", "bf16", "fp16"):
        return request  # type: ignore[return-value]
    if request != "auto":
        raise ConfigError(f"precision '{request}' is unknown", "Use auto, fp32, bf16 or fp16.")
    if device.type == "cuda" or (device.type == "cpu" and torch.cpu._is_amx_fp16_supported()):
        return "fp16"
    if device.type == "cpu" and torch.cpu._is_amx_tile_supported():
        log.info("this CPU is faster with --precision bf16, which changes a few labels in 1,000 along borders")
    return "fp32"


def describe_machine(device: torch.device, devices: int, threads: int | None) -> str:
    """On what something was computed, without naming the machine: so many CPU cores, or which GPU."""
    import torch

    times = f"{devices} x " if devices > 1 else ""
    if device.type == "cuda":
        return f"{times}{torch.cuda.get_device_name(device)}"
    return f"{times}{threads or torch.get_num_threads()} CPU cores"
