"""Prepared training data: one layout for every data set.

::

    dataset.json    {"name", "classes": [{"name", "color"}, ...], "mpp", "description"}
    samples.csv     sample,image,label,group,split     (paths relative to the folder)
    images/         RGB, PNG or JPEG
    labels/         uint8 PNG of the same size: 0 = unlabelled, ignored; i + 1 = class i

``group`` is what must not be split between training and testing (slide or patient), ``split`` is free text such as
``train``, ``val`` or ``test``.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, PositiveFloat, ValidationError

from sampath_wsi.classes import TissueClass
from sampath_wsi.errors import DataError

COLUMNS = ("sample", "image", "label", "group", "split")


class DatasetInfo(BaseModel):
    """What ``dataset.json`` says of a prepared data set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    classes: tuple[TissueClass, ...]
    mpp: PositiveFloat
    description: str = ""


@dataclass(frozen=True)
class Sample:
    """One row of ``samples.csv``; paths relative to the folder."""

    sample: str
    image: str
    label: str
    group: str
    split: str


@dataclass(frozen=True)
class PreparedData:
    """A prepared data set that has been checked: every file is there, and images and labels fit each other."""

    folder: Path
    info: DatasetInfo
    samples: tuple[Sample, ...]

    def split(self, name: str) -> tuple[Sample, ...]:
        """The samples of a split.

        Raises
        ------
        DataError
            If there is none.
        """
        found = tuple(s for s in self.samples if s.split == name)
        if not found:
            known = ", ".join(sorted({s.split for s in self.samples}))
            raise DataError(f"{self.folder}: no sample of the split {name!r}", f"Its splits are: {known}.")
        return found

    def read(self, sample: Sample) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Image ``(H, W, 3)`` and label map ``(H, W)`` of a sample.

        Raises
        ------
        DataError
            If a file is damaged or the label map holds an unknown label.
        """
        try:
            with Image.open(self.folder / sample.image) as image, Image.open(self.folder / sample.label) as label:
                pixels, labels = np.asarray(image.convert("RGB")), np.asarray(label)
        except (OSError, SyntaxError) as error:
            raise DataError(
                f"{self.folder}: sample {sample.sample} cannot be read ({error})", "Prepare it again."
            ) from error
        if labels.size and labels.max() > len(self.info.classes):
            raise DataError(
                f"{self.folder / sample.label}: label {labels.max()} is unknown, "
                f"{self.info.name} has the classes 1 to {len(self.info.classes)}",
                "Correct the label map or dataset.json.",
            )
        return pixels, labels


def read_prepared(folder: str | Path) -> PreparedData:
    """Open a prepared data set and check it: columns, unique names, files, sizes and modes of all samples.

    Raises
    ------
    DataError
        Naming the first thing that is missing or does not fit.
    """
    folder = Path(folder)
    info = _read_info(folder / "dataset.json")
    samples = _read_samples(folder / "samples.csv")
    names: set[str] = set()
    for sample in samples:
        if sample.sample in names:
            raise DataError(f"{folder / 'samples.csv'}: sample {sample.sample} occurs twice", "Name each sample once.")
        names.add(sample.sample)
        _check_pair(folder, sample)
    return PreparedData(folder, info, samples)


def _read_info(path: Path) -> DatasetInfo:
    try:
        return DatasetInfo.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing", "Name the folder of a prepared data set.") from error
    except (ValidationError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} does not describe a data set: {_first_line(error)}", "Prepare the data again."
        ) from error


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc'])) or 'file'}: {first['msg']}"
    return str(error)


def _read_samples(path: Path) -> tuple[Sample, ...]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            missing = [c for c in COLUMNS if c not in (reader.fieldnames or ())]
            if missing:
                raise DataError(f"{path} lacks the column {missing[0]}", f"Its columns must be {', '.join(COLUMNS)}.")
            rows = [{c: row[c] or "" for c in COLUMNS} for row in reader]
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing", "Prepare the data again.") from error
    if not rows:
        raise DataError(f"{path} lists no sample", "Prepare the data again.")
    return tuple(Sample(**row) for row in rows)


def _check_pair(folder: Path, sample: Sample) -> None:
    sizes = []
    for name in (sample.image, sample.label):
        try:
            with Image.open(folder / name) as image:
                sizes.append((image.size, image.mode))
        except (FileNotFoundError, IsADirectoryError) as error:
            raise DataError(f"sample {sample.sample}: {folder / name} is missing", "Prepare the data again.") from error
        except (UnidentifiedImageError, OSError) as error:
            raise DataError(f"sample {sample.sample}: {folder / name} is not an image", "Prepare it again.") from error
    (image_size, _), (label_size, label_mode) = sizes
    if image_size != label_size:
        raise DataError(
            f"sample {sample.sample}: the image is {_by(image_size)} px and the label map {_by(label_size)} px",
            f"Check {sample.image} and {sample.label} in {folder}.",
        )
    if label_mode not in ("L", "P"):
        raise DataError(
            f"sample {sample.sample}: {folder / sample.label} has the mode {label_mode}",
            "A label map is a PNG with one 8-bit channel.",
        )


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
