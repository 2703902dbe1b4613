"""Names, colours and order of the classes of a model.

Label values: 0 means "no class" (outside the tissue, or unlabelled), and class ``i`` of a model (0-based)
has the label ``i + 1``. Channel ``i`` of a probability array belongs to class ``i``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator

from sampath_wsi.errors import ConfigError

Byte = Annotated[int, Field(ge=0, le=255)]


class TissueClass(BaseModel):
    """One class: the name that QuPath shows and its RGB colour."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    color: tuple[Byte, Byte, Byte]

    @field_validator("name")
    @classmethod
    def _name_is_usable(cls, name: str) -> str:
        # QuPath rejects blank names and splits a name at ":" into a derived class.
        if not name.strip() or ":" in name:
            raise ValueError(f"class name {name!r} is blank or contains ':', which QuPath does not accept")
        if not name.isprintable():
            raise ValueError(f"class name {name!r} contains control characters")
        return name

    @property
    def ignored(self) -> bool:
        """Whether QuPath's convention (a trailing ``*``) says that this class makes no objects."""
        return self.name.endswith("*")


def class_index(classes: Sequence[TissueClass], name: str) -> int:
    """Return the position of the class of a name.

    Raises
    ------
    ConfigError
        If there is none.
    """
    names = [entry.name for entry in classes]
    if name not in names:
        raise ConfigError(f"the model knows no class '{name}'", f"Its classes: {', '.join(names)}.")
    return names.index(name)


def colour_table(classes: tuple[TissueClass, ...]) -> NDArray[np.uint8]:
    """Return colours by label value.

    Returns
    -------
    ``(len(classes) + 1, 3)`` uint8; row 0 (no class) is white.
    """
    return np.array([(255, 255, 255), *(c.color for c in classes)], dtype=np.uint8)
