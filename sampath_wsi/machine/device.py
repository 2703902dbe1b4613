"""Choice of device and precision, and locks that keep jobs on one machine off each other's GPUs."""

from __future__ import annotations

import fcntl
import logging
import os
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
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
    """Yield the best device there is; a GPU is held by a lock until the block ends or the process dies.

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

    kind, gpus = _find(request)
    if gpus:
        with lease(_names(gpus)) as (position,):
            yield torch.device(kind, gpus[position])
    else:
        yield torch.device(kind)


def first_device(request: str = "auto") -> torch.device:
    """Return the device that :func:`leased_device` would give if no other job used one; it is not held.

    Raises
    ------
    ConfigError
        If the device that was asked for does not exist.
    """
    import torch

    kind, gpus = _find(request)
    return torch.device(kind, gpus[0]) if gpus else torch.device(kind)


def _find(request: str) -> tuple[str, list[int]]:
    """Return ``cuda`` and the indices that come into question, ``mps`` or ``cpu``."""
    import torch

    kind, _, index = request.partition(":")
    if kind not in ("auto", "cuda", "mps", "cpu") or (index and not index.isdigit()):
        raise ConfigError(f"device '{request}' is unknown", "Use auto, cpu, cuda, cuda:N or mps.")
    count = torch.cuda.device_count()
    if kind == "cuda" and (count == 0 or (index and int(index) >= count)):
        raise ConfigError(
            f"device '{request}': torch {torch.__version__} sees {count} CUDA devices", "Use device: auto."
        )
    if kind in ("auto", "cuda") and count:
        return "cuda", [int(index)] if index else _own_gpus()
    has_mps = kind in ("auto", "mps") and torch.backends.mps.is_available()
    if kind == "mps" and not has_mps:
        raise ConfigError("device 'mps': not available on this machine", "Use device: auto.")
    return "mps" if has_mps else "cpu", []


@contextmanager
def leased_gpus(count: int) -> Iterator[list[int]]:
    """Yield the indices of several GPUs, held until the block ends or the process dies; waits until so many are free.

    Raises
    ------
    ConfigError
        If there are not so many.
    """
    import torch

    gpus = _own_gpus()
    if len(gpus) < count:
        raise ConfigError(
            f"{count} devices were asked for, torch {torch.__version__} sees {len(gpus)} CUDA devices",
            "Lower the number of devices.",
        )
    with lease(_names(gpus), count) as positions:
        yield [gpus[position] for position in positions]


def _own_gpus() -> list[int]:
    """Return the indices of the CUDA devices that a job may use: those that torch sees, or fewer if Slurm says so."""
    import torch

    visible = list(range(torch.cuda.device_count()))
    # Slurm sets CUDA_VISIBLE_DEVICES, which torch minds, unless the cluster is configured otherwise. Where it hides the
    # other GPUs, those that are visible have new numbers, and are as many as were assigned.
    words = (os.environ.get("SLURM_STEP_GPUS") or os.environ.get("SLURM_JOB_GPUS") or "").split(",")
    assigned = [int(word) for word in words if word.isdigit() and int(word) in visible]
    if "CUDA_VISIBLE_DEVICES" in os.environ or not assigned or len(words) >= len(visible):
        return visible
    return assigned


def _names(gpus: Sequence[int]) -> list[str]:
    import torch

    return [str(torch.cuda.get_device_properties(index).uuid) for index in gpus]


@contextmanager
def lease(names: Sequence[str], count: int = 1, folder: Path | None = None) -> Iterator[list[int]]:
    """Hold some of several named things that processes of this machine share; waits until so many are free.

    Parameters
    ----------
    names
        Machine-wide names, in order of preference.
    count
        How many are wanted; all are held or none, so that no two jobs can wait for each other.
    folder
        Of the lock files; by default one a user in ``/tmp``, independent of a job's own temporary folder.

    Yields
    ------
    The positions in ``names`` of those that are held.
    """
    folder = folder or _lock_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    waited = False
    while True:
        with ExitStack() as locks:
            held: list[int] = []
            for position, name in enumerate(names):
                if len(held) < count and _lock(folder / f"{name}.lock", locks):
                    held.append(position)
            if len(held) == count:
                yield held
                return
        if not waited:
            log.info("%d of %d devices are wanted, and used by other jobs of this machine; waiting", count, len(names))
            waited = True
        # Random pauses: two that wait in step could each hold what the other needs, for ever.
        time.sleep(_POLL_S * random.uniform(0.5, 1.5))


def held_gpus() -> list[bool]:
    """Return of each CUDA device that torch sees whether a job holds it at this moment."""
    import torch

    names, folder = _names(range(torch.cuda.device_count())), _lock_folder()
    with ExitStack() as locks:
        return [folder.exists() and not _lock(folder / f"{name}.lock", locks) for name in names]


def _lock_folder() -> Path:
    shared = Path("/tmp")
    return (shared if os.access(shared, os.W_OK) else Path(tempfile.gettempdir())) / f"sampath_wsi-{os.getuid()}"


def _lock(path: Path, locks: ExitStack) -> bool:
    """Lock a file until the stack closes; return whether it was free."""
    lock = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return False
    locks.callback(os.close, lock)  # closing frees the lock
    return True


def choose_precision(request: str, device: torch.device) -> Precision:
    """Return the precision of the encoders (neck and decoder always compute in fp32).

    ``auto`` is fp16 where the hardware multiplies it several times as fast as fp32 (CUDA, CPUs with AMX for fp16), and
    fp32 elsewhere. Rounding to fp16 changes a few labels in 10,000, to bf16 a few in 1,000 (`benchmarks/forward.py`);
    fp16's narrower range is watched by :class:`sampath_wsi.stages.infer.predictor.Predictor`.

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
    cpu = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    if device.type == "cuda" or cpu.get("amx_fp16"):
        return "fp16"
    if cpu.get("amx_tile"):
        log.info("this CPU is faster with --precision bf16, which changes a few labels in 1,000 along borders")
    return "fp32"


def describe_machine(device: torch.device, devices: int, threads: int | None) -> str:
    """Describe the device without naming the machine: the number of CPU cores, or the GPU's model."""
    import torch

    times = f"{devices} x " if devices > 1 else ""
    if device.type == "cuda":
        return f"{times}{torch.cuda.get_device_name(device)}"
    return f"{times}{threads or torch.get_num_threads()} CPU cores"


def initialize_mkl() -> None:
    """Let MKL choose its vector functions now, in one thread.

    It chooses at the first call of one of them. Where several threads make it at once, as the layers of a model do, one
    of them now and then computes that call in another way, which rounds differently.
    """
    import torch

    torch.ones(16, device="cpu").sqrt()
