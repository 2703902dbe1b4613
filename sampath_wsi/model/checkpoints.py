"""Reads checkpoint files of others without running anything that is in them."""

from __future__ import annotations

import logging
import pickle
import struct
import types
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from sampath_wsi.errors import ModelError

log = logging.getLogger(__name__)

State = dict[str, torch.Tensor]

# A stream of a pickle's instructions that was cut or altered fails in as many ways as there are instructions.
_DAMAGED = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BufferError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
)

_PLAIN = {
    ("collections", "OrderedDict"),
    ("torch", "Size"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch._utils", "_rebuild_tensor_v2"),
}


def read_checkpoint(path: Path, *, allowed: Sequence[type] = (), trust: bool = False) -> Any:
    """Read a file of ``torch.save`` or safetensors.

    Tensors, plain containers and ``allowed`` classes are read. Nothing else of a pickle is ever imported or called:
    a file that names anything else is refused, or, with ``trust``, read with inert placeholders in its place.

    Parameters
    ----------
    path
        The file.
    allowed
        Classes beyond tensors and containers that the format is known to hold.
    trust
        Accept a pickle that names other objects; the replaced objects are logged as a warning.

    Raises
    ------
    ModelError
        If the file is missing, truncated, of another format, or names objects that are not allowed (all are listed).
    """
    if not path.is_file():
        raise ModelError(f"{path}: there is no such checkpoint", "Check the path.")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, *_DAMAGED) as error:
            raise _unreadable(path, error) from error
    with torch.serialization.safe_globals(list(allowed)):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            foreign = _foreign_globals(path)
            if not foreign:
                raise _unreadable(path, "it is not a plain checkpoint of torch") from error
        except _DAMAGED as error:
            raise _unreadable(path, error) from error
    if not trust:
        raise ModelError(
            f"{path}: the checkpoint holds more than tensors and plain containers: {', '.join(foreign)}",
            "If you trust where it comes from, give --trust: these objects are then left out.",
        )
    log.warning("%s: left out of the trusted checkpoint: %s", path, ", ".join(foreign))
    return _read_with_placeholders(path)


def tensors_of(record: object, path: Path, *entries: str) -> State:
    """Return the state dict in a checkpoint.

    Parameters
    ----------
    record
        What :func:`read_checkpoint` gave.
    path
        For messages.
    entries
        Keys under which a state dict may lie; the first one present is taken, else the record itself.

    Raises
    ------
    ModelError
        If there is no non-empty mapping of names to tensors.
    """
    if isinstance(record, dict):
        record = next((record[entry] for entry in entries if isinstance(record.get(entry), dict)), record)
    if not isinstance(record, dict):
        raise ModelError(f"{path}: holds a {type(record).__name__}, not the weights of a model", "Check the file.")
    others = [str(key) for key, value in record.items() if not isinstance(value, torch.Tensor)]
    if others or not record:
        found = f"beside tensors: {', '.join(others[:3])}" if record else "nothing"
        raise ModelError(f"{path}: not the weights of a model, it holds {found}", "Check the file.")
    return {str(key): value for key, value in record.items()}


def without_prefixes(state: State, *prefixes: str) -> State:
    """Return the state with each of the prefixes removed, in that order, from the keys that have it."""
    for prefix in prefixes:
        state = {key.removeprefix(prefix): tensor for key, tensor in state.items()}
    return state


def under(state: State, prefix: str) -> State:
    """Return the part of a state below a prefix, without the prefix."""
    return {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}


def _unreadable(path: Path, reason: object) -> ModelError:
    first_line = str(reason).partition("\n")[0][:200]
    return ModelError(f"{path}: cannot be read as a checkpoint, it may be truncated ({first_line})", "Get it again.")


def _foreign_globals(path: Path) -> list[str]:
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except (pickle.UnpicklingError, *_DAMAGED):
        return []


class _Placeholder(dict[object, object]):
    """Stands for an object of a class that is not loaded; accepts every call of unpickling."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__()

    def __setstate__(self, state: object) -> None:
        """Leave the object's state out."""

    def __call__(self, *args: object, **kwargs: object) -> _Placeholder:
        return self

    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)

    def append(self, item: object) -> None:
        """Leave the item out."""

    def extend(self, items: object) -> None:
        """Leave the items out."""

    add = append


class _InertUnpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str) -> object:
        if (module_name, global_name) in _PLAIN:
            return super().find_class(module_name, global_name)
        return _Placeholder


def _read_with_placeholders(path: Path) -> object:
    if not zipfile.is_zipfile(path):
        raise _unreadable(path, "only torch's zip format can be read with --trust")
    pickle_module = types.SimpleNamespace(Unpickler=_InertUnpickler, __name__="inert pickle")
    try:
        return torch.load(path, map_location="cpu", weights_only=False, pickle_module=pickle_module)
    except (pickle.UnpicklingError, *_DAMAGED) as error:
        raise _unreadable(path, error) from error
