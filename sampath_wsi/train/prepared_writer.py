"""Writes prepared training data in the layout of :mod:`sampath_wsi.train.prepared`."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sampath_wsi.errors import DataError
from sampath_wsi.train.prepared import COLUMNS, DatasetInfo, Sample


class PreparedWriter:
    """Writes a prepared data set aside and puts it in place when it is whole; use it as a context manager.

    Parameters
    ----------
    folder
        Where it will lie. A finished data set there is replaced.
    info
        Name, classes, resolution.

    Raises
    ------
    DataError
        If something lies there that is not a prepared data set.
    """

    def __init__(self, folder: str | Path, info: DatasetInfo) -> None:
        self._folder = Path(folder)
        if self._folder.exists() and any(self._folder.iterdir()) and not (self._folder / "samples.csv").exists():
            raise DataError(f"{self._folder} holds something else than prepared data", "Name an empty folder.")
        self._aside = self._folder.with_name(f"{self._folder.name}.partial")
        self._info = info
        self._rows: list[Sample] = []

    def __enter__(self) -> PreparedWriter:
        shutil.rmtree(self._aside, ignore_errors=True)
        for name in ("images", "labels"):
            (self._aside / name).mkdir(parents=True)
        return self

    def add(self, sample: str, image: NDArray[np.uint8], label: NDArray[np.uint8], group: str, split: str) -> None:
        """Store one pair: ``(H, W, 3)`` RGB and ``(H, W)`` labels, both losslessly."""
        row = Sample(sample, f"images/{sample}.png", f"labels/{sample}.png", group, split)
        Image.fromarray(image).save(self._aside / row.image, compress_level=4)
        Image.fromarray(label).save(self._aside / row.label)
        self._rows.append(row)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            shutil.rmtree(self._aside, ignore_errors=True)
            return
        text = json.dumps(self._info.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"
        (self._aside / "dataset.json").write_text(text, encoding="utf-8")
        with (self._aside / "samples.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows([getattr(row, c) for c in COLUMNS] for row in self._rows)
        if self._folder.exists():
            shutil.rmtree(self._folder)
        self._aside.rename(self._folder)
