"""What was written of a data set, and what there is to say about it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sampath_wsi.classes import TissueClass
from sampath_wsi.errors import DataError


@dataclass(frozen=True)
class Summary:
    """What a preparation did: classes, samples by split, groups, and warnings, one line each."""

    folder: Path
    classes: tuple[str, ...]
    samples: dict[str, int]
    groups: int
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = ", ".join(f"{split} {count}" for split, count in sorted(self.samples.items()))
        total = sum(self.samples.values())
        return f"{total} samples of {self.groups} groups in {self.folder} ({parts}); {', '.join(self.classes)}"


class Tally:
    """Counts samples and labels while a data set is written."""

    def __init__(self, classes: tuple[TissueClass, ...]) -> None:
        self.warnings: list[str] = []
        self._classes = classes
        self._pixels = np.zeros(len(classes) + 1, np.int64)
        self._samples: Counter[str] = Counter()
        self._groups: set[str] = set()
        self._left_out: list[str] = []
        self._empty_tiles = 0

    def leave_out(self, image: str) -> None:
        """Remember an image that was left out because it has no label at all."""
        self._left_out.append(image)

    def count(self, labels: NDArray[np.uint8], group: str, split: str) -> None:
        """Count a sample that was written."""
        self._pixels += np.bincount(labels.ravel(), minlength=len(self._pixels))
        self._empty_tiles += not labels.any()
        self._samples[split] += 1
        self._groups.add(group)

    def summary(self, folder: Path) -> Summary:
        """The counts, and warnings about images without a label and classes that never occur.

        Raises
        ------
        DataError
            If no sample is left.
        """
        if not self._samples:
            raise DataError(
                f"no image has a label ({len(self._left_out)} without one)",
                "Check the masks or annotations, and the class coding.",
            )
        warnings = list(self.warnings)
        if self._left_out:
            warnings.append(f"{len(self._left_out)} images without a label left out, the first is {self._left_out[0]}")
        if self._empty_tiles:
            warnings.append(f"{self._empty_tiles} tiles have no label (the images that they were cut from have)")
        never = [c.name for c, count in zip(self._classes, self._pixels[1:], strict=True) if not count]
        if never:
            warnings.append(f"no pixel is labelled {', '.join(never)}: a model cannot learn it from these data")
        names = tuple(c.name for c in self._classes)
        return Summary(folder, names, dict(self._samples), len(self._groups), tuple(warnings))
