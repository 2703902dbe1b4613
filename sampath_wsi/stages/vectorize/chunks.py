"""Where the class map comes from: windows of it, and of the probabilities behind it, read one chunk at a time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sampath_wsi.stores.shards import Shards
from sampath_wsi.stores.store import open_store, read_array


@dataclass(frozen=True)
class Window:
    """A rectangle of whole map pixels: rows ``y`` to ``y + height``, columns ``x`` to ``x + width``."""

    y: int
    x: int
    height: int
    width: int


def _unit(dtype: np.dtype[Any]) -> float:
    return 255.0 if dtype == np.uint8 else 1.0


class ClassMap(Protocol):
    """A class map that is read by windows; every process or thread calls it, so it must be picklable and pure."""

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in map pixels."""

    @property
    def probability_unit(self) -> float:
        """What the probabilities hold for 1: 255 for bytes."""

    def labels(self, window: Window) -> NDArray[np.uint8]:
        """``(height, width)`` label values: 0 = no class, ``i + 1`` = class ``i``."""

    def probability(self, window: Window) -> NDArray[Any] | None:
        """``(class, height, width)``, uint8 (255 = 1) or float in [0, 1]; None where there is none."""


@dataclass(frozen=True)
class ArrayMap:
    """A class map that lies in memory."""

    label_map: NDArray[np.uint8]
    probability_map: NDArray[Any] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        height, width = self.label_map.shape
        return height, width

    @property
    def probability_unit(self) -> float:
        return 1.0 if self.probability_map is None else _unit(self.probability_map.dtype)

    def labels(self, window: Window) -> NDArray[np.uint8]:
        return self.label_map[window.y : window.y + window.height, window.x : window.x + window.width]

    def probability(self, window: Window) -> NDArray[Any] | None:
        if self.probability_map is None:
            return None
        return self.probability_map[:, window.y : window.y + window.height, window.x : window.x + window.width]


class StoreMap:
    """The full-resolution class map and probabilities of a segmentation store; opened where it is used.

    Raises
    ------
    StoreError
        On use, if there is no finished segmentation store, or an array is missing or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._arrays: tuple[Shards, Shards] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_arrays": None}

    @property
    def arrays(self) -> tuple[Shards, Shards]:
        """The label map ``(y, x)`` and the probabilities ``(class, y, x)`` at level 0."""
        if self._arrays is None:
            group, _ = open_store(self.path, "segmentation")
            self._arrays = Shards(read_array(group, "labels/classes/0")), Shards(read_array(group, "0"))
        return self._arrays

    @property
    def shape(self) -> tuple[int, int]:
        height, width = self.arrays[0].shape
        return height, width

    @property
    def probability_unit(self) -> float:
        return _unit(self.arrays[1].dtype)

    def labels(self, window: Window) -> NDArray[np.uint8]:
        return self._read(0, window).astype(np.uint8, copy=False)

    def probability(self, window: Window) -> NDArray[Any] | None:
        return self._read(1, window)

    def _read(self, which: int, window: Window) -> NDArray[Any]:
        rows, columns = slice(window.y, window.y + window.height), slice(window.x, window.x + window.width)
        array = self.arrays[which]
        return array.read(*(slice(0, n) for n in array.shape[:-2]), rows, columns)


@dataclass(frozen=True)
class Chunking:
    """A map cut into windows, row by row; the windows at the right and lower edge may be smaller."""

    shape: tuple[int, int]
    chunk_map_px: int

    @property
    def rows(self) -> int:
        return -(-self.shape[0] // self.chunk_map_px)

    @property
    def columns(self) -> int:
        return -(-self.shape[1] // self.chunk_map_px)

    def window(self, row: int, column: int) -> Window:
        """The window in a row and column of the cut, both counted from 0."""
        size = self.chunk_map_px
        y, x = row * size, column * size
        return Window(y, x, min(size, self.shape[0] - y), min(size, self.shape[1] - x))

    @property
    def windows(self) -> list[Window]:
        return [self.window(row, column) for row in range(self.rows) for column in range(self.columns)]
