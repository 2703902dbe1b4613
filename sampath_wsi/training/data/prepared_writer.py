"""Writes training data in the layout of :mod:`sampath_wsi.training.data.prepared`, for data of every source."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

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
    """The content of data that were written: classes, samples by split, groups; and warnings, one line each."""

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
    what: str = "images",
    warnings: Sequence[str] = (),
    progress: Progress | None = None,
) -> Summary:
    """Read one source after the other, write its samples losslessly, and count them.

    The data appear when they are whole, and take the place of those that were prepared there before.

    Parameters
    ----------
    sources
        Functions by the name of an image or slide; each reads it and yields its samples. A source that yields none is
        left out, with a warning.
    what
        Plural noun of the sources, for the progress.
    warnings
        Those that come first; those about images without a label and classes that never occur follow.

    Raises
    ------
    DataError
        If something lies there that is not a prepared data set, no sample is left, or from a source. Nothing new is
        left then.
    """
    folder = Path(out)
    if folder.exists() and any(folder.iterdir()) and not (folder / "samples.csv").exists():
        raise DataError(f"{folder} holds something else than prepared data", "Name an empty folder.")
    step = stepper(progress, len(sources), what)
    label_px = np.zeros(len(info.classes) + 1, np.int64)
    rows: list[Sample] = []
    left_out, unlabelled = list[str](), 0
    with _written_aside(folder) as aside:
        for name, read in sources.items():
            before = len(rows)
            for image in read():
                rows.append(_save(aside, image))
                label_px += np.bincount(image.labels.ravel(), minlength=len(label_px))
                unlabelled += not image.labels.any()
            if len(rows) == before:
                left_out.append(name)
            step()
        if not rows:
            raise DataError(
                f"no image has a label ({len(left_out)} without one)",
                "Check the masks or annotations, and the label map.",
            )
        write_json(aside / "dataset.json", info.model_dump(mode="json"))
        write_table(aside / "samples.csv", [asdict(row) for row in rows])
    found = list(warnings)
    if left_out:
        found.append(f"{len(left_out)} images without a label left out, the first is {left_out[0]}")
    if unlabelled:
        found.append(f"{unlabelled} tiles have no label (the images that they were cut from have)")
    names = tuple(c.name for c in info.classes)
    if never := [name for name, count in zip(names, label_px[1:], strict=True) if not count]:
        found.append(f"no pixel is labelled {', '.join(never)}: a model cannot learn it from these data")
    samples, groups = Counter(row.split for row in rows), {row.group for row in rows}
    return Summary(folder, names, dict(samples), len(groups), tuple(found))


def _save(folder: Path, image: LabelledImage) -> Sample:
    """Store the files of a sample; return its row."""
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
    Image.fromarray(image.image).save(folder / row.image, compress_level=4)
    Image.fromarray(image.labels).save(folder / row.label)
    if image.instances is not None:
        (folder / "instances").mkdir(exist_ok=True)
        Image.fromarray(image.instances.astype(np.uint16)).save(folder / row.instances)
    return row


@contextmanager
def _written_aside(folder: Path) -> Iterator[Path]:
    """Yield a folder to write to; it takes the place of ``folder`` at the end, and is removed on an error."""
    aside = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        for name in ("images", "labels"):
            (aside / name).mkdir(parents=True)
        yield aside
        if folder.exists():
            shutil.rmtree(folder)
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
