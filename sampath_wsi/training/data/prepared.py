"""Prepared training data: one layout for every data set.

::

    dataset.json    {"name", "classes": [{"name", "color"}, ...], "mpp", "description"}
    samples.csv     sample,image,label,group,split     (paths relative to the folder)
                    and, where there is a need, instances,field,x_px,y_px
    images/         RGB, PNG or JPEG, of any size
    labels/         uint8 PNG of the same size: 0 = unlabelled, ignored; i + 1 = class i
    instances/      uint16 PNG of the same size: 0 = background, any other value one instance

``group`` is what must not be split between training and testing (slide or patient), ``split`` is free text such as
``train``, ``val`` or ``test``. A sample that was cut from a larger image says from which (``field``) and where its
corner lay there (``x_px``, ``y_px``); by default a sample is a field of its own. A splits file (CSV with the columns
``sample`` and ``split``) takes the place of the column ``split``; samples that it does not name are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, PositiveFloat, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from sampath_wsi.classes import TissueClass
from sampath_wsi.errors import DataError
from sampath_wsi.training.data.pictures import check_picture, open_picture, read_table, to_rgb

TRAIN, VAL, TEST = "train", "val", "test"
# Of the maps beside an image: its name, the modes that Pillow may give it, and the required ones in words.
_LABELS = "label image", ("L", "P"), "one 8-bit channel"
_INSTANCES = "map of instances", ("I;16", "I", "L"), "one channel of at most 16 bits"


class DatasetInfo(BaseModel):
    """The content of ``dataset.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    classes: tuple[TissueClass, ...]
    mpp: PositiveFloat
    description: str = ""


@checked_dataclass(frozen=True)
class Sample:
    """One row of ``samples.csv``; paths relative to the folder."""

    sample: str
    image: str
    label: str
    group: str
    split: str
    instances: str = ""
    """Map of instances, or empty."""
    field: str = ""
    """The image it was cut from: its own name if it was not cut."""
    x_px: int = 0
    y_px: int = 0
    """Its corner in the field."""


COLUMNS = tuple(column.name for column in fields(Sample))
_REQUIRED = COLUMNS[:5]
_SAMPLE = TypeAdapter(Sample)


@dataclass(frozen=True)
class PreparedData:
    """A prepared data set that has been checked: every file is there, and images and labels fit each other."""

    folder: Path
    info: DatasetInfo
    samples: tuple[Sample, ...]
    sizes_px: Mapping[str, tuple[int, int]]
    """Width and height of every sample."""

    def split(self, name: str) -> tuple[Sample, ...]:
        """Return the samples of a split; DataError if there is none."""
        found = tuple(s for s in self.samples if s.split == name)
        if not found:
            known = ", ".join(sorted({s.split for s in self.samples}))
            raise DataError(f"{self.folder}: no sample of the split {name!r}", f"Its splits are: {known}.")
        return found

    def read(self, sample: Sample) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return the image ``(H, W, 3)`` and the labels ``(H, W)`` of a sample.

        Raises
        ------
        DataError
            If a file is damaged or an unknown label occurs.
        """
        with self._reading(sample), open_picture(self.folder / sample.image) as image:
            pixels = to_rgb(image, self.folder / sample.image)
        with self._reading(sample), open_picture(self.folder / sample.label) as label:
            labels = np.asarray(label)
        if labels.size and labels.max() > len(self.info.classes):
            raise DataError(
                f"{self.folder / sample.label}: label {labels.max()} is unknown, "
                f"{self.info.name} has the classes 1 to {len(self.info.classes)}",
                "Correct the label image or dataset.json.",
            )
        return pixels, labels

    def read_instances(self, sample: Sample) -> NDArray[np.integer]:
        """Return the map of instances ``(H, W)`` of a sample: 0 = background, any other value one instance.

        Raises
        ------
        DataError
            If the sample has none, or the file is damaged.
        """
        if not sample.instances:
            raise DataError(
                f"{self.folder}: sample {sample.sample} has no map of instances",
                "Prepare a data set that has instances, such as CRAG or GlaS.",
            )
        with self._reading(sample), open_picture(self.folder / sample.instances) as instances:
            return np.asarray(instances)

    @contextmanager
    def _reading(self, sample: Sample) -> Iterator[None]:
        try:
            yield
        except (OSError, SyntaxError) as error:
            raise DataError(
                f"{self.folder}: sample {sample.sample} cannot be read ({error})", "Prepare it again."
            ) from error


def read_prepared(folder: str | Path, splits: str | Path | None = None) -> PreparedData:
    """Open a prepared data set and check it: columns, unique names, files, sizes and modes of all samples.

    Parameters
    ----------
    folder
        The data set.
    splits
        A splits file, instead of the column ``split``.

    Raises
    ------
    DataError
        Naming the first thing that is missing or does not fit.
    """
    folder = Path(folder)
    info, samples = _read_info(folder / "dataset.json"), _read_samples(folder / "samples.csv")
    if splits is not None:
        samples = _split_anew(samples, Path(splits))
    return PreparedData(folder, info, samples, {sample.sample: _check_files(folder, sample) for sample in samples})


def _first_problem(error: ValidationError) -> str:
    """Return the first place where a file does not fit its model, and why."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}{': ' if where else ''}{first['msg'].removeprefix('Value error, ')}"


def _read_info(path: Path) -> DatasetInfo:
    try:
        return DatasetInfo.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing", "Name the folder of a prepared data set.") from error
    except ValidationError as error:
        raise DataError(
            f"{path} does not describe a data set: {_first_problem(error)}", "Prepare the data again."
        ) from error


def _read_samples(path: Path) -> tuple[Sample, ...]:
    samples = []
    for name, row in read_table(path, _REQUIRED).items():
        known = {column: row[column] for column in COLUMNS if column in _REQUIRED or row.get(column)}
        try:
            samples.append(_SAMPLE.validate_python({"field": name, **known}))
        except ValidationError as error:
            raise DataError(f"{path}: sample {name}: {_first_problem(error)}", "Prepare the data again.") from error
    return tuple(samples)


def _split_anew(samples: tuple[Sample, ...], path: Path) -> tuple[Sample, ...]:
    split_of = {name: row["split"] for name, row in read_table(path, ("sample", "split")).items()}
    if unknown := sorted(split_of.keys() - {s.sample for s in samples}):
        raise DataError(
            f"{path} names {len(unknown)} samples that the data do not have, such as {unknown[0]}",
            "Make the splits file from these data.",
        )
    return tuple(replace(s, split=split_of[s.sample]) for s in samples if s.sample in split_of)


def _check_files(folder: Path, sample: Sample) -> tuple[int, int]:
    """Check that the files of a sample are there and fit each other; return its width and height."""
    size, _ = _size_and_mode(folder / sample.image, sample, is_picture=True)
    for name, (what, modes, rule) in ((sample.label, _LABELS), (sample.instances, _INSTANCES)):
        if not name:
            continue
        other, mode = _size_and_mode(folder / name, sample)
        if other != size:
            raise DataError(
                f"sample {sample.sample}: the image is {size[0]} x {size[1]} px "
                f"and the {what} {other[0]} x {other[1]} px",
                f"Check {sample.image} and {name} in {folder}.",
            )
        if mode not in modes:
            raise DataError(
                f"sample {sample.sample}: {folder / name} has the mode {mode}", f"A {what} is a PNG with {rule}."
            )
    return size


def _size_and_mode(path: Path, sample: Sample, *, is_picture: bool = False) -> tuple[tuple[int, int], str]:
    try:
        with open_picture(path) as image:
            if is_picture:
                check_picture(image, path)
            return image.size, image.mode
    except (FileNotFoundError, IsADirectoryError) as error:
        raise DataError(f"sample {sample.sample}: {path} is missing", "Prepare the data again.") from error
    except (UnidentifiedImageError, OSError) as error:
        raise DataError(f"sample {sample.sample}: {path} is not an image", "Prepare it again.") from error
