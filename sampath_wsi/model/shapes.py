"""Building models for their shapes alone: no memory is taken and no weight is drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_DRAWING = (torch.Tensor.erfinv_, torch.Tensor.clamp_, torch.Tensor.normal_, torch.nn.init.normal_)


@contextmanager
def shapes_only() -> Iterator[None]:
    """Modules that are made in the block lie on the meta device: they have shapes, but no values."""
    with torch.device("meta"), _WithoutDrawing():
        yield


class _WithoutDrawing(TorchFunctionMode):
    """Leaves out functions with which weights are drawn from normal distributions, truncated or not.

    On the meta device they change nothing, but load torch's compiler: a second of CPU time for every slide.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _DRAWING:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
