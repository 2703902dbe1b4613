"""The record of a store's origin.

Two stores with equal :attr:`Provenance.identity` hold the same data. So everything that changes the data is part of it,
the versions of the stages' arithmetic included, and nothing else is: not where files lie or what they are called, not
the device, and not the batch and the precision that were chosen for it. These two are recorded beside it
(:class:`Computed`), and one store never mixes two.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from sampath_wsi.classes import TissueClass
from sampath_wsi.errors import StoreError
from sampath_wsi.geometry import TileGrid
from sampath_wsi.stages import VERSIONS

FORMAT_VERSION = 2
Kind = Literal["tiles", "probabilities", "segmentation"]
_STAGE_OF: dict[str, str] = {"tiles": "tile", "probabilities": "infer", "segmentation": "stitch"}
# Names, and how something was computed: no part of an identity.
_NAMES = (("computed",), ("slide", "id"), ("slide", "name"), ("grid", "mpp_source"), ("model", "name"))
_LONGEST_SHOWN = 30


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SlideRecord(_Record):
    """A slide: ``fingerprint`` names its content, ``id`` its row in the sample sheet, ``name`` its file."""

    id: str
    name: str
    vendor: str
    fingerprint: str
    qupath_offset_level0_px: tuple[int, int]


class ModelRecord(_Record):
    """A model, its classes in the order of its channels, and a digest of how it is built and normalises its input."""

    name: str
    weights_sha256: str
    classes: tuple[TissueClass, ...]
    settings_sha256: str = ""


class Computed(_Record):
    """Facts of the computation of probabilities: the precision of the encoders, and tiles a batch."""

    precision: str
    batch: int


@dataclass(frozen=True)
class Provenance:
    """The origin of a store: program, slide, model and options that determine its content.

    Parameters
    ----------
    kind
        Of the store; the stage that writes it follows from it.
    slide
        The slide.
    grid
        Where the tiles lie.
    options
        Every option of the stage that changes the data.
    inputs
        Hashes of the other inputs: files, and the identity of the store that was read.
    model
        The model; None for tiles.
    versions
        Versions of the arithmetic of the stage and of those before it.
    computed
        How it was computed; no part of the identity.
    """

    kind: Kind
    slide: SlideRecord
    grid: TileGrid
    options: Mapping[str, object] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    model: ModelRecord | None = None
    versions: Mapping[str, int] = field(default_factory=dict)
    computed: Computed | None = None

    def __post_init__(self) -> None:
        if not self.versions:
            stage = _STAGE_OF[self.kind]
            object.__setattr__(self, "versions", {stage: VERSIONS[stage]})

    def followed_by(self, kind: Kind, options: Mapping[str, object], *, model: ModelRecord | None = None) -> Provenance:
        """Return the provenance of a store that the next stage makes of this one."""
        stage = _STAGE_OF[kind]
        return replace(
            self,
            kind=kind,
            options=options,
            inputs={self.kind: self.identity},
            model=model or self.model,
            versions={**self.versions, stage: VERSIONS[stage]},
            computed=None,
        )

    @property
    def identity(self) -> str:
        """SHA-256 of all that determines the data: the name of the store's content."""
        record = self.to_json()
        for path in _NAMES:
            section: dict[str, Any] = record
            for name in path[:-1]:
                section = section[name] or {}
            section.pop(path[-1], None)
        return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()

    def is_like(self, other: Provenance) -> bool:
        """Return whether the data are the same, and computed in the same precision and batches."""
        return (self.identity, self.computed) == (other.identity, other.computed)

    @property
    def weights_sha256(self) -> str:
        """The digest of the model's weights."""
        return self.known_model.weights_sha256

    @property
    def classes(self) -> tuple[TissueClass, ...]:
        """The model's classes; class i has the label value i + 1."""
        return self.known_model.classes

    @property
    def known_model(self) -> ModelRecord:
        """The model, of a store that a model made."""
        if self.model is None:
            raise StoreError(f"a {self.kind} store records no model", "Make it anew.")
        return self.model

    def to_json(self) -> dict[str, object]:
        """Return the record as a JSON object."""
        return {
            "format_version": FORMAT_VERSION,
            "kind": self.kind,
            "versions": dict(self.versions),
            "slide": self.slide.model_dump(mode="json"),
            "grid": self.grid.to_json(),
            "options": dict(self.options),
            "inputs": dict(self.inputs),
            "model": None if self.model is None else self.model.model_dump(mode="json"),
            "computed": None if self.computed is None else self.computed.model_dump(mode="json"),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Provenance:
        """Return a provenance from the JSON object that :meth:`to_json` made.

        Raises
        ------
        StoreError
            If the record is of another format, or damaged.
        """
        found = record.get("format_version")
        if found != FORMAT_VERSION:
            raise StoreError(f"written in format {found}, this version reads format {FORMAT_VERSION}", "Make it anew.")
        try:
            return cls(
                kind=record["kind"],
                slide=SlideRecord.model_validate(record["slide"]),
                grid=TileGrid.from_json(record["grid"]),
                options=dict(record["options"]),
                inputs=dict(record["inputs"]),
                model=None if record["model"] is None else ModelRecord.model_validate(record["model"]),
                versions=dict(record["versions"]),
                computed=None if record["computed"] is None else Computed.model_validate(record["computed"]),
            )
        except (KeyError, TypeError, ValueError, ValidationError) as error:
            raise StoreError(f"its record is damaged ({error!r})", "Make it anew.") from error

    def outdated(self) -> str:
        """Say which stage has changed since the store was made; empty where none has."""
        for stage, version in self.versions.items():
            if version != (known := VERSIONS.get(stage)):
                return f"version {version} of the stage '{stage}' made it, this program has version {known}"
        return ""

    def differences(self, other: Provenance) -> str:
        """Return the fields in which another provenance differs, with the values where these are short."""
        one, two = ({**_flat(each.to_json())} for each in (self, other))
        found = []
        for key in {**one, **two}:
            values = [str(each.get(key)) for each in (one, two)]
            if values[0] != values[1] and tuple(key.split(".")) not in _NAMES:
                name = key.rpartition(".")[2]
                found.append(f"{name} {values[0]} and {values[1]}" if max(map(len, values)) < _LONGEST_SHOWN else name)
        return ", ".join(dict.fromkeys(found)) or "nothing"


def _flat(record: Mapping[str, object], path: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in record.items():
        flat |= _flat(value, f"{path}{key}.") if isinstance(value, Mapping) else {f"{path}{key}": value}
    return flat
