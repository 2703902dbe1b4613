"""Building models for their shapes alone, and importing libraries, without what nobody needs of them.

torch loads its compiler (``torch._dynamo``) the first time that anything asks to be left out of compilation, and sympy
to fill tensors that have no values. Segmenting needs neither unless told to, and together they cost more than a second
of CPU time for every slide.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

# With what modules give their weights values when they are made.
_MAKE_VALUES = {
    *(nn.init.uniform_, nn.init.normal_, nn.init.constant_, nn.init.kaiming_uniform_),
    *(torch.Tensor.uniform_, torch.Tensor.normal_, torch.Tensor.zero_, torch.Tensor.fill_),
    *(torch.Tensor.erfinv_, torch.Tensor.mul_, torch.Tensor.add_, torch.Tensor.clamp_, torch.Tensor.mul),
}


@contextmanager
def shapes_only() -> Iterator[None]:
    """Modules that are made in the block lie on the meta device: they have shapes, but no values."""
    with _WithoutValues(), torch.device("meta"), compiler_left_out():
        yield


class _WithoutValues(TorchFunctionMode):
    """What would only change the values of a tensor that has none does nothing."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.randn and kwargs["device"].type == "meta":
            return torch.empty(*args, **kwargs)
        if func in _MAKE_VALUES:
            given = [*args, *kwargs.values()]
            if given[0].is_meta and not any(isinstance(other, torch.Tensor) for other in given[1:]):
                return given[0]
        return func(*args, **kwargs)


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
