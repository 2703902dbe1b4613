"""Runs a training in processes that are killed in the middle: a program of its own, since pytest cannot be forked.

    python killed_runs.py RECIPE DATA OUT SEED

begins the run in OUT again and again. Each time the process is killed (SIGKILL) after a random number of batches or in
the middle of writing a checkpoint, until the run is through. Prints the number of kills.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import numpy as np
import torch

from sampath_wsi.training.loop import TrainingLoop
from sampath_wsi.training.run import Run, RunOptions
from sampath_wsi.training.train import train


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_in_step(number: int) -> None:
    """Be killed when a batch has been computed, before the optimiser's step or after."""
    left, train_batch = number, TrainingLoop.train_batch

    def dying(self: TrainingLoop, *arguments: Any) -> None:
        nonlocal left
        left -= 1
        train_batch(self, *arguments)
        if left == 0:
            _die()

    TrainingLoop.train_batch = dying  # type: ignore[method-assign]


def _die_in_checkpoint(number: int) -> None:
    """Be killed with half of a checkpoint written."""
    left, save = number, torch.save

    def dying(record: Any, file: Any) -> None:
        nonlocal left
        left -= 1
        save(record, file)
        if left == 0:
            file.flush()
            os.truncate(file.fileno(), os.fstat(file.fileno()).st_size // 2)
            _die()

    torch.save = dying


def main() -> None:
    recipe, data, out, seed = sys.argv[1:]
    rng = np.random.default_rng(int(seed))
    kills = 0
    while True:
        number, where = int(rng.integers(3, 9)), rng.choice([_die_in_step, _die_in_checkpoint])
        child = os.fork()
        if child == 0:
            where(number)
            train(Run(recipe, data, out, resume=True, options=RunOptions("cpu", threads=1, checkpoint_minutes=0)))
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if not os.WIFSIGNALED(status):
            break
        kills += 1
    print(kills)
    sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
