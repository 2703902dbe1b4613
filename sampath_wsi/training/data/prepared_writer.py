"""Writes prepared training data in the layout of :mod:`sampath_wsi.training.data.prepared`."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sampath_wsi.errors import DataError
from sampath_wsi.files import write_json, write_table
from sampath_wsi.training.data.prepared import COLUMNS, OPTIONAL_COLUMNS, DatasetInfo, Sample


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

    def add(
        self,
        sample: str,
        image: NDArray[np.uint8],
        label: NDArray[np.uint8],
        group: str,
        split: str,
        *,
        instances: NDArray[np.integer] | None = None,
        field: str = "",
        x_px: int = 0,
        y_px: int = 0,
    ) -> None:
        """Store a sample, losslessly.

        Parameters
        ----------
        sample
            Its name, which becomes that of its files.
        image, label
            ``(H, W, 3)`` RGB and ``(H, W)`` labels: 0 = unlabelled, i + 1 = class i.
        group, split
            The patient or slide, and e.g. ``train``.
        instances
            ``(H, W)``: 0 = background, any other value (below 65536) one instance.
        field, x_px, y_px
            The region it was cut from and its corner there; by default it is a field of its own.
        """
        row = Sample(
            sample=sample,
            image=f"images/{sample}.png",
            label=f"labels/{sample}.png",
            group=group,
            split=split,
            field=field or sample,
            x_px=x_px,
            y_px=y_px,
            instances="" if instances is None else f"instances/{sample}.png",
        )
        Image.fromarray(image).save(self._aside / row.image, compress_level=4)
        Image.fromarray(label).save(self._aside / row.label)
        if instances is not None:
            (self._aside / "instances").mkdir(exist_ok=True)
            Image.fromarray(instances.astype(np.uint16)).save(self._aside / row.instances)
        self._rows.append(row)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            shutil.rmtree(self._aside, ignore_errors=True)
            return
        write_json(self._aside / "dataset.json", self._info.model_dump(mode="json"))
        columns = COLUMNS + OPTIONAL_COLUMNS
        write_table(self._aside / "samples.csv", [{c: getattr(row, c) for c in columns} for row in self._rows])
        if self._folder.exists():
            shutil.rmtree(self._folder)
        self._aside.rename(self._folder)
