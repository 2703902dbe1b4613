"""Class coding: which codes of a mask, or names of annotations, mean which class. Configuration, not code.

A coding is a YAML file; those of BCSS, CRAG and GlaS lie in ``codings/`` beside this module. Its keys are the fields of
:class:`Coding`.
"""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Annotated

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, ValidationError, model_validator

from sampath_wsi.classes import Byte, TissueClass
from sampath_wsi.errors import ConfigError, DataError

SHIPPED = Path(__file__).parent / "codings"
Code = Annotated[int, Field(ge=0, lt=2**16)]
_UNKNOWN = 255


class CodedClass(BaseModel):
    """One class, and what stands for it: codes of masks (each with its name in the data set), names of annotations."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    color: tuple[Byte, Byte, Byte]
    codes: dict[Code, str] = {}
    names: tuple[str, ...] = ()

    @property
    def tissue_class(self) -> TissueClass:
        return TissueClass(name=self.name, color=self.color)


class Coding(BaseModel):
    """The classes of a data set and how its files say them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    classes: Annotated[tuple[CodedClass, ...], Field(min_length=1, max_length=254)]
    mpp: PositiveFloat = 0.5
    tile_px: NonNegativeInt = 0
    """Side of the tiles that images are cut into; 0 keeps them whole."""
    description: str = ""
    ignored: dict[Code, str] = {}
    """Codes that become unlabelled."""
    other_codes: str | None = None
    """The class of every code that is not listed; without it such a code is an error."""
    instances: bool = False
    """Whether the mask tells instances apart: 0 = background, any other code one of them."""
    ignored_names: tuple[str, ...] = ()
    """Annotations of these classes clear what lies below them; so do those whose class ends in ``*``."""
    unclassified: str | None = None
    """The class of annotations that have none; without it they are left out."""
    expected_images: dict[str, int] = {}
    """How many images each split of the data set has when it is complete."""
    test_sites: tuple[str, ...] = ()
    """BCSS: tissue source sites (the second part of a TCGA barcode) whose slides are for testing."""

    @model_validator(mode="after")
    def _is_unambiguous(self) -> Coding:
        codes = [code for c in self.classes for code in c.codes] + list(self.ignored)
        names = [name for c in self.classes for name in (c.name, *c.names)] + list(self.ignored_names)
        for what, values in (("code", codes), ("name", names)):
            twice = [value for value, count in Counter(values).items() if count > 1]
            if twice:
                raise ValueError(f"the {what} {twice[0]!r} occurs twice")
        for key in ("other_codes", "unclassified"):
            wanted = getattr(self, key)
            if wanted is not None and wanted not in {c.name for c in self.classes}:
                raise ValueError(f"{key}: there is no class {wanted!r}")
        _ = self.tissue_classes
        return self

    @property
    def tissue_classes(self) -> tuple[TissueClass, ...]:
        """The classes in the order of their labels: class ``i`` has the label ``i + 1``."""
        return tuple(c.tissue_class for c in self.classes)

    @cached_property
    def _labels(self) -> NDArray[np.uint8]:
        """Label by code."""
        labels = {c.name: label for label, c in enumerate(self.classes, 1)}
        table = np.full(2**16, labels.get(self.other_codes or "", _UNKNOWN), np.uint8)
        for c in self.classes:
            table[list(c.codes)] = labels[c.name]
        table[list(self.ignored)] = 0
        return table

    def encode(self, mask: NDArray[np.integer], where: Path) -> NDArray[np.uint8]:
        """Turn a mask of codes into labels of the same shape.

        Raises
        ------
        DataError
            Naming the file ``where`` and the smallest code that the coding does not know.
        """
        if mask.size and not 0 <= int(mask.min()) <= int(mask.max()) < 2**16:
            raise DataError(f"{where}: holds values up to {mask.max()}", "Codes are whole numbers from 0 to 65535.")
        labels: NDArray[np.uint8] = self._labels[mask]
        unknown = mask[labels == _UNKNOWN]
        if unknown.size:
            known = sorted({code for c in self.classes for code in c.codes} | set(self.ignored))
            raise DataError(
                f"{where}: the code {unknown.min()} is unknown ({self.name} has {', '.join(map(str, known))})",
                "Give it a class, or ignore it, in a coding of your own (--coding).",
            )
        return labels

    @cached_property
    def label_of_name(self) -> dict[str, int]:
        """Label by class name of an annotation; 0 for the names to ignore."""
        known = {name: label for label, c in enumerate(self.classes, 1) for name in (c.name, *c.names)}
        return known | dict.fromkeys(self.ignored_names, 0)


def load_coding(name_or_path: str | Path) -> Coding:
    """A coding by the name of one that ships (``bcss``, ``crag``, ``glas``) or by the path of a YAML file.

    Raises
    ------
    ConfigError
        Naming the file, the key, and what is wrong with it.
    """
    shipped = SHIPPED / f"{name_or_path}.yaml"
    path = shipped if shipped.is_file() else Path(name_or_path)
    try:
        return Coding.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        names = ", ".join(sorted(file.stem for file in SHIPPED.glob("*.yaml")))
        raise ConfigError(f"{path}: there is no such coding", f"Name a YAML file, or one of {names}.") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "coding"
        raise ConfigError(f"{path}: {key}: {first['msg']}", "docs/data.md explains the keys.") from None
    except (yaml.YAMLError, UnicodeDecodeError, TypeError) as error:
        raise ConfigError(f"{path}: not a YAML file: {error}", "docs/data.md shows one.") from None
