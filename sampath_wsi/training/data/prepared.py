"""Prepared training data: one layout for every data set.

::

    dataset.json    {"name", "classes": [{"name", "color"}, ...], "mpp", "description"}
    samples.csv     sample,image,label,group,split     (paths relative to the folder)
                    and, where there is a need, instances,field,x_px,y_px
    images/         RGB, PNG or JPEG, of any size
    labels/         uint8 PNG of the same size: 0 = unlabelled, ignored; i + 1 = class i
    instances/      uint16 PNG of the same size: 0 = background, any other value one instance

``group`` is what must not be split between training and testing (slide or patient), ``split`` is free text such as
``train``, ``val`` or ``test``. A sample that was cut from a larger region says from which (``field``) and where its
corner lay there (``x_px``, ``y_px``); by default a sample is a field of its own. A splits file (CSV with the columns
``sample`` and ``split``) takes the place of the column ``split``; samples that it does not name are left out.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, PositiveFloat, ValidationError

from sampath_wsi.classes import TissueClass
from sampath_wsi.errors import DataError
from sampath_wsi.training.data.pictures import open_picture

COLUMNS = ("sample", "image", "label", "group", "split")
OPTIONAL_COLUMNS = ("instances", "field", "x_px", "y_px")


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
    field: str
    """The region it was cut from: its own name if it was not cut."""
    x_px: int = 0
    y_px: int = 0
    """Its corner in the field."""
    instances: str = ""
    """Map of instances, or empty."""


@dataclass(frozen=True)
class PreparedData:
    """A prepared data set that has been checked: every file is there, and images and labels fit each other."""

    folder: Path
    info: DatasetInfo
    samples: tuple[Sample, ...]
    sizes_px: Mapping[str, tuple[int, int]]
    """Width and height of every sample."""

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
            with open_picture(self.folder / sample.image) as image, open_picture(self.folder / sample.label) as label:
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

    def read_instances(self, sample: Sample) -> NDArray[np.integer]:
        """Map of instances ``(H, W)`` of a sample: 0 = background, any other value one instance.

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
        try:
            with open_picture(self.folder / sample.instances) as instances:
                return np.asarray(instances)
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
    info = _read_info(folder / "dataset.json")
    samples = _read_samples(folder / "samples.csv")
    names: set[str] = set()
    for sample in samples:
        if sample.sample in names:
            raise DataError(f"{folder / 'samples.csv'}: sample {sample.sample} occurs twice", "Name each sample once.")
        names.add(sample.sample)
    if splits is not None:
        samples = _split_anew(samples, Path(splits))
    return PreparedData(folder, info, samples, {sample.sample: _check_files(folder, sample) for sample in samples})


def _split_anew(samples: tuple[Sample, ...], path: Path) -> tuple[Sample, ...]:
    rows = read_rows(path, ("sample", "split"))
    split_of = {row["sample"]: row["split"] for row in rows}
    if len(split_of) < len(rows):
        twice = Counter(row["sample"] for row in rows).most_common(1)[0][0]
        raise DataError(f"{path}: sample {twice} occurs twice", "Name each sample once.")
    if unknown := sorted(split_of.keys() - {s.sample for s in samples}):
        raise DataError(
            f"{path} names {len(unknown)} samples that the data do not have, such as {unknown[0]}",
            "Make the splits file from these data.",
        )
    return tuple(replace(s, split=split_of[s.sample]) for s in samples if s.sample in split_of)


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
    rows = read_rows(path, COLUMNS)
    try:
        return tuple(
            Sample(
                **{column: row[column] or "" for column in COLUMNS},
                field=row.get("field") or row["sample"],
                x_px=int(row.get("x_px") or 0),
                y_px=int(row.get("y_px") or 0),
                instances=row.get("instances") or "",
            )
            for row in rows
        )
    except ValueError as error:
        raise DataError(f"{path}: x_px and y_px must be whole numbers ({error})", "Prepare the data again.") from error


def read_rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV file that has at least the given columns; DataError if it is missing, empty or lacks one."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [c for c in columns if c not in (reader.fieldnames or ())]
            if missing:
                raise DataError(f"{path} lacks the column {missing[0]}", f"Its columns must be {', '.join(columns)}.")
            rows = list(reader)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not a text file in UTF-8", "Save it as CSV in UTF-8.") from error
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing", "Check the path, or prepare the data again.") from error
    if not rows:
        raise DataError(f"{path} lists no sample", "Prepare the data again.")
    return rows


def _check_files(folder: Path, sample: Sample) -> tuple[int, int]:
    """Check that the files of a sample are there and fit each other; its width and height."""
    size, _ = _size_and_mode(folder, sample, sample.image)
    for what, name, modes, rule in (
        ("label map", sample.label, ("L", "P"), "one 8-bit channel"),
        ("map of instances", sample.instances, ("I;16", "I", "L"), "one channel of at most 16 bits"),
    ):
        if not name:
            continue
        other_size, mode = _size_and_mode(folder, sample, name)
        if other_size != size:
            raise DataError(
                f"sample {sample.sample}: the image is {_by(size)} px and the {what} {_by(other_size)} px",
                f"Check {sample.image} and {name} in {folder}.",
            )
        if mode not in modes:
            raise DataError(
                f"sample {sample.sample}: {folder / name} has the mode {mode}", f"A {what} is a PNG with {rule}."
            )
    return size


def _size_and_mode(folder: Path, sample: Sample, name: str) -> tuple[tuple[int, int], str]:
    try:
        with open_picture(folder / name) as image:
            return image.size, image.mode
    except (FileNotFoundError, IsADirectoryError) as error:
        raise DataError(f"sample {sample.sample}: {folder / name} is missing", "Prepare the data again.") from error
    except (UnidentifiedImageError, OSError) as error:
        raise DataError(f"sample {sample.sample}: {folder / name} is not an image", "Prepare it again.") from error


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
