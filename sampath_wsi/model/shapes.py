"""Building models for their shapes alone, and importing libraries, without torch's compiler.

torch loads its compiler (``torch._dynamo``) the first time that anything asks to be left out of compilation. Segmenting
compiles nothing unless told to, and loading costs more than a second of CPU time for every slide.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch


@contextmanager
def shapes_only() -> Iterator[None]:
    """Modules that are made in the block lie on the meta device: they have shapes, but no values."""
    with torch.device("meta"), compiler_left_out():
        yield


@contextmanager
def compiler_left_out() -> Iterator[None]:
    """A stand-in takes the compiler's place in the block, if it is not loaded yet: nothing there is ever compiled."""

    def disable(fn: Any = None, *_: object, **__: object) -> Any:
        return fn

    def is_compile_supported(device_type: str) -> bool:
        from torch._dynamo.utils import is_compile_supported as real

        return bool(real(device_type))

    package, utils = ModuleType("torch._dynamo"), ModuleType("torch._dynamo.utils")
    package.__dict__.update(disable=disable, utils=utils)
    utils.__dict__.update(is_compile_supported=is_compile_supported)
    stand_ins = {} if package.__name__ in sys.modules else {each.__name__: each for each in (package, utils)}
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name in stand_ins:
            del sys.modules[name]
