"""Features kept on disk until all are known, and given back in their order."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np

from sampath_wsi.stages.vectorize.drawing import Feature


class Spool:
    """A temporary file of encoded features; only three numbers of each stay in memory.

    Parameters
    ----------
    folder
        Where the file lies while it is used; it has no name there.
    """

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by __exit__
        self._order: list[int] = []
        self._begin: list[int] = [0]

    def add(self, feature: Feature) -> None:
        """Take a feature; its bytes go to the file."""
        self._file.write(feature.data)
        self._order.append(feature.order)
        self._begin.append(self._begin[-1] + len(feature.data))

    def __iter__(self) -> Iterator[bytes]:
        """The features, ascending by their order."""
        self._file.flush()
        # Read piece by piece: pages of a mapped file would count as memory of this process.
        for k in np.argsort(np.array(self._order), kind="stable").tolist():
            yield os.pread(self._file.fileno(), self._begin[k + 1] - self._begin[k], self._begin[k])

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
