"""Writes training data in the layout of :mod:`sampath_wsi.training.data.prepared`, whatever they come from."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sampath_wsi.errors import DataError
from sampath_wsi.files import write_json, write_table
from sampath_wsi.progress import Progress, stepper
from sampath_wsi.training.data.prepared import DatasetInfo, Sample


@dataclass(frozen=True)
class LabelledImage:
    """An image, or a tile of one, as it becomes a sample."""

    name: str
    """Becomes that of its files."""
    image: NDArray[np.uint8]
    """RGB, ``(H, W, 3)``."""
    labels: NDArray[np.uint8]
    """``(H, W)``: 0 = unlabelled, i + 1 = class i."""
    group: str
    """The patient or slide."""
    split: str
    instances: NDArray[np.integer] | None = None
    """``(H, W)``: 0 = background, any other value (below 65536) one instance."""
    field: str = ""
    """The image it was cut from; by default it is a field of its own."""
    x_px: int = 0
    y_px: int = 0
    """Its corner in the field."""


@dataclass(frozen=True)
class Summary:
    """What was written: classes, samples by split, groups, and warnings, one line each."""

    folder: Path
    classes: tuple[str, ...]
    samples: dict[str, int]
    groups: int
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = ", ".join(f"{split} {count}" for split, count in sorted(self.samples.items()))
        total = sum(self.samples.values())
        return f"{total} samples of {self.groups} groups in {self.folder} ({parts}); {', '.join(self.classes)}"


def write_prepared(
    out: str | Path,
    info: DatasetInfo,
    sources: Mapping[str, Callable[[], Iterable[LabelledImage]]],
    what: str,
    warnings: Sequence[str] = (),
    progress: Progress | None = None,
) -> Summary:
    """Read one source after the other, write what each gives, and count it.

    Parameters
    ----------
    sources
        By the name of an image or slide the function that reads it and yields what becomes samples. A source that
        yields nothing is left out, with a warning.
    what
        What the sources are, in the plural, for the progress.
    warnings
        What was found before; those about images without a label and classes that never occur follow.

    Raises
    ------
    DataError
        If no sample is left, or from a source. Nothing is left then.
    """
    step = stepper(progress, len(sources), what)
    label_px = np.zeros(len(info.classes) + 1, np.int64)
    samples, groups, left_out, unlabelled = Counter[str](), set[str](), list[str](), 0
    with PreparedWriter(out, info) as writer:
        for name, read in sources.items():
            before = samples.total()
            for image in read():
                writer.add(image)
                label_px += np.bincount(image.labels.ravel(), minlength=len(label_px))
                unlabelled += not image.labels.any()
                samples[image.split] += 1
                groups.add(image.group)
            if samples.total() == before:
                left_out.append(name)
            step()
        if not samples:
            raise DataError(
                f"no image has a label ({len(left_out)} without one)",
                "Check the masks or annotations, and the label map.",
            )
    found = list(warnings)
    if left_out:
        found.append(f"{len(left_out)} images without a label left out, the first is {left_out[0]}")
    if unlabelled:
        found.append(f"{unlabelled} tiles have no label (the images that they were cut from have)")
    names = tuple(c.name for c in info.classes)
    if never := [name for name, count in zip(names, label_px[1:], strict=True) if not count]:
        found.append(f"no pixel is labelled {', '.join(never)}: a model cannot learn it from these data")
    return Summary(Path(out), names, dict(samples), len(groups), tuple(found))


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

    def add(self, image: LabelledImage) -> None:
        """Store a sample, losslessly."""
        file = f"{image.name}.png"
        row = Sample(
            sample=image.name,
            image=f"images/{file}",
            label=f"labels/{file}",
            group=image.group,
            split=image.split,
            instances="" if image.instances is None else f"instances/{file}",
            field=image.field or image.name,
            x_px=image.x_px,
            y_px=image.y_px,
        )
        Image.fromarray(image.image).save(self._aside / row.image, compress_level=4)
        Image.fromarray(image.labels).save(self._aside / row.label)
        if image.instances is not None:
            (self._aside / "instances").mkdir(exist_ok=True)
            Image.fromarray(image.instances.astype(np.uint16)).save(self._aside / row.instances)
        self._rows.append(row)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            shutil.rmtree(self._aside, ignore_errors=True)
            return
        write_json(self._aside / "dataset.json", self._info.model_dump(mode="json"))
        write_table(self._aside / "samples.csv", [asdict(row) for row in self._rows])
        if self._folder.exists():
            shutil.rmtree(self._folder)
        self._aside.rename(self._folder)
