"""Label maps: the codes of masks and the names of annotations that mean each class. Configuration, not code.

A label map is a YAML file; those of BCSS, CRAG and GlaS lie in ``label_maps/`` beside this module. Its keys are the
fields of :class:`LabelMap`.
"""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Annotated

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveFloat, model_validator

from sampath_wsi.classes import TissueClass
from sampath_wsi.errors import ConfigError, DataError
from sampath_wsi.options import Options
from sampath_wsi.training.data.prepared import DatasetInfo

SHIPPED = Path(__file__).parent / "label_maps"
Code = Annotated[int, Field(ge=0, lt=2**16)]
_UNKNOWN = 255
MAX_CLASSES = 254


class MappedClass(TissueClass):
    """One class, and its names in the data: codes of masks (with names in the data set), names of annotations."""

    codes: dict[Code, str] = Field(default_factory=dict)
    names: tuple[str, ...] = ()


class LabelMap(Options):
    """The classes of a data set and their codes and names in its files."""

    name: str
    """name of the data set"""
    classes: Annotated[tuple[MappedClass, ...], Field(min_length=1, max_length=MAX_CLASSES)]
    """1 to 254 classes in the order of their labels, each with name, color, and at will codes and names"""
    mpp: PositiveFloat = 0.5
    """resolution in micrometres a pixel"""
    tile_px: NonNegativeInt = 0
    """side of the tiles that images are cut into; 0 keeps them whole"""
    description: str = ""
    """description of the data set"""
    ignored: dict[Code, str] = Field(default_factory=dict)
    """codes that become unlabelled"""
    other_codes: str | None = None
    """the class of every code that is not listed; without it such a code is an error"""
    instances: bool = False
    """whether the mask tells instances apart: 0 = background, any other code one of them"""
    ignored_names: tuple[str, ...] = ()
    """annotations of these classes clear what lies below them; so do those that end in ``*`` (``Region*`` limits)"""
    unclassified: str | None = None
    """the class of annotations that have none; without it they are left out"""
    expected_images: dict[str, int] = Field(default_factory=dict)
    """how many images each split of the data set has when it is complete"""
    test_sites: tuple[str, ...] = ()
    """BCSS: tissue source sites (the second part of a TCGA barcode) whose slides are for testing"""

    @model_validator(mode="after")
    def _is_unambiguous(self) -> LabelMap:
        names = [name for c in self.classes for name in (c.name, *c.names)] + list(self.ignored_names)
        for what, values in (("code", self.codes), ("name", names)):
            if twice := [value for value, count in Counter(values).items() if count > 1]:
                raise ValueError(f"the {what} {twice[0]!r} occurs twice")
        for key, wanted in (("other_codes", self.other_codes), ("unclassified", self.unclassified)):
            if wanted is not None and wanted not in {c.name for c in self.classes}:
                raise ValueError(f"{key}: there is no class {wanted!r}")
        return self

    @property
    def codes(self) -> list[int]:
        """The codes that are listed."""
        return [code for c in self.classes for code in c.codes] + list(self.ignored)

    @cached_property
    def tissue_classes(self) -> tuple[TissueClass, ...]:
        """The classes in the order of their labels: class ``i`` has the label ``i + 1``."""
        return tuple(TissueClass(name=c.name, color=c.color) for c in self.classes)

    def dataset_info(self, mpp: float, cut: str) -> DatasetInfo:
        """Return the description of data at ``mpp`` um/px that were cut as ``cut`` tells."""
        description = "; ".join(filter(None, (self.description, cut)))
        return DatasetInfo(name=self.name, classes=self.tissue_classes, mpp=mpp, description=description)

    @cached_property
    def label_of_name(self) -> dict[str, int]:
        """Label by class name of an annotation; 0 for names to ignore."""
        known = {name: label for label, c in enumerate(self.classes, 1) for name in (c.name, *c.names)}
        return known | dict.fromkeys(self.ignored_names, 0)

    @cached_property
    def _label_of_code(self) -> NDArray[np.uint8]:
        rest = _UNKNOWN if self.other_codes is None else self.label_of_name[self.other_codes]
        table = np.full(2**16, rest, np.uint8)
        for label, c in enumerate(self.classes, 1):
            table[list(c.codes)] = label
        table[list(self.ignored)] = 0
        return table

    def encode(self, mask: NDArray[np.integer], where: Path) -> NDArray[np.uint8]:
        """Return the labels of a mask of codes, in the same shape.

        Raises
        ------
        DataError
            Naming the file ``where`` and the smallest code that is unknown.
        """
        if mask.size and not 0 <= int(mask.min()) <= int(mask.max()) < 2**16:
            raise DataError(f"{where}: holds values up to {mask.max()}", "Codes are whole numbers from 0 to 65535.")
        labels: NDArray[np.uint8] = self._label_of_code[mask]
        unknown = mask[labels == _UNKNOWN]
        if unknown.size:
            known = ", ".join(map(str, sorted(self.codes)))
            raise DataError(
                f"{where}: the code {unknown.min()} is unknown ({self.name} has {known})",
                "Give it a class, or ignore it, in a label map of your own (--label-map).",
            )
        return labels


def load_label_map(name_or_path: str | Path) -> LabelMap:
    """Return a label map by the name of one that ships (``bcss``, ``crag``, ``glas``) or by the path of a YAML file.

    Raises
    ------
    ConfigError
        Its message names the file, the key and the problem.
    """
    shipped = SHIPPED / f"{name_or_path}.yaml"
    path = shipped if shipped.is_file() else Path(name_or_path)
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        names = ", ".join(sorted(file.stem for file in SHIPPED.glob("*.yaml")))
        raise ConfigError(f"{path}: there is no such label map", f"Name a YAML file, or one of {names}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a YAML file: {error}", "docs/data.md shows one.") from None
    return LabelMap.of(given, str(path))
