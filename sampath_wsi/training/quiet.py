"""Keeps Lightning quiet where its advice does not apply."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_lightning() -> Iterator[None]:
    """Lightning without its advice, each piece for a reason."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)  # "GPU available: False", tips about other products
    advice = (
        # Reading a tile takes milliseconds, a step seconds: one process is a choice here, not an oversight.
        r".*does not have many workers.*",
        # A run goes on in its own folder.
        r"Checkpoint directory .* exists and is not empty.*",
        # The sampler is told where to go on; Lightning knows of loaders that keep such a state themselves.
        r".*your dataloader is not resumable.*",
        # Frozen encoders stay in eval mode on purpose.
        r"Found \d+ module\(s\) in eval mode at the start of training.*",
        # Processes are started here, also within a job of Slurm.
        r"The `srun` command is available.*",
        # Lightning's own use of torch's private tree functions.
        r"`isinstance\(treespec, LeafSpec\)` is deprecated.*",
    )
    with warnings.catch_warnings():
        for message in advice:
            warnings.filterwarnings("ignore", message)
        try:
            yield
        finally:
            logger.setLevel(level)
