"""Lightning's trainer as a recipe wants it, and the devices that it runs on."""

from __future__ import annotations

import atexit
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sampath_wsi.model.torchvision_compat  # noqa: F401

# isort: split
import lightning.pytorch as lightning
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy

from sampath_wsi.errors import ConfigError, SampathError
from sampath_wsi.machine.device import leased_device, leased_gpus
from sampath_wsi.training.checkpoints import SafeCheckpointIO
from sampath_wsi.training.recipe import Recipe

Devices = int | list[int]
"""A number of devices, or the indices of those to use."""

_PRECISION: dict[str, Any] = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


@dataclass(frozen=True)
class RunOptions:
    """How a run is computed; none of it changes the result by more than rounding.

    Attributes
    ----------
    device, devices
        ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``, and how many. Several devices are a process each, started by
        running the program's own command line again.
    threads
        Threads of torch on the CPU; as many as torch likes if not given.
    workers
        Processes that read and augment tiles for each device; by default none on a CPU, some beside a GPU.
    checkpoint_minutes
        Time between checkpoints within an epoch; 0 writes one after every optimiser step.
    machine
        What the card says of the machine; by default how many CPU cores or which GPU it had.
    """

    device: str = "auto"
    devices: int = 1
    threads: int | None = None
    workers: int | None = None
    checkpoint_minutes: float = 10.0
    machine: str = ""


@contextmanager
def held_devices(options: RunOptions) -> Iterator[tuple[str, Devices]]:
    """Where a run is computed: (kind of device, which); GPUs are kept from other jobs until the block ends.

    Raises
    ------
    ConfigError
        If there are no such devices.
    """
    request, count = options.device, options.devices
    if count == 1:
        with leased_device(request) as device:
            yield device.type, [device.index] if device.type == "cuda" else 1
        return
    kind = "cuda" if request == "auto" else request
    if kind not in ("cuda", "cpu"):
        raise ConfigError(f"device '{request}' cannot be used {count} times", "Use auto, cuda or cpu.")
    if kind == "cuda":
        with leased_gpus(count) as held:
            yield kind, held
        return
    yield kind, count


@contextmanager
def one_voice(trainer: lightning.Trainer) -> Iterator[None]:
    """Of the processes of a run the first alone reports an error, and none outlives it."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, SampathError) and not trainer.is_global_zero:
            # All have the same error. Any other code than 0 would let Lightning kill the first, mid-sentence.
            raise SystemExit(0) from None
        if trainer.strategy.launcher is not None:
            # At the very end: Lightning kills this process soon after it sees that another is dead.
            atexit.register(trainer.strategy.launcher.kill, signal.SIGKILL)
        if (
            isinstance(error.__context__, KeyboardInterrupt)
            and isinstance(error, SystemExit)
            and trainer.is_global_zero
        ):
            # Lightning makes a plain exit of Ctrl-C, which is told like that of every other command.
            raise KeyboardInterrupt from None
        raise


def this_rank() -> int:
    """Number of this process among those of a run; 0 where there is one, and before the others are started."""
    return LightningEnvironment().local_rank()


def make_trainer(
    recipe: Recipe, out: Path, callbacks: Sequence[lightning.Callback], kind: str, devices: Devices
) -> lightning.Trainer:
    """The trainer of a run; with several devices each has a process of its own (DDP).

    Raises
    ------
    ConfigError
        If the device cannot compute in the recipe's precision.
    """
    if recipe.precision == "fp16" and kind == "cpu":
        raise ConfigError(
            f"the recipe {recipe.name} wants fp16, which a CPU cannot train in", "Use precision: bf16 or fp32."
        )
    several = (devices if isinstance(devices, int) else len(devices)) > 1
    return lightning.Trainer(
        accelerator=kind,
        devices=devices,
        # No buffer changes in training, and processes validate different numbers of batches.
        strategy=DDPStrategy(broadcast_buffers=False) if several else "auto",
        # Processes are started here, whatever cluster the machine belongs to.
        plugins=[SafeCheckpointIO(), LightningEnvironment()],
        use_distributed_sampler=False,
        precision=_PRECISION[recipe.precision],
        max_epochs=recipe.epochs,
        accumulate_grad_batches=recipe.accumulate,
        gradient_clip_val=recipe.optimiser.clip_norm,
        check_val_every_n_epoch=recipe.validate_every,
        num_sanity_val_steps=0,
        logger=False,
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=out,
    )
