"""Probabilities as bytes: p = v / 255, and the bytes of a pixel sum to exactly 255.

Works alike on NumPy arrays and torch tensors, so that the device that computes probabilities can also shrink them.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

SCALE = 255


def to_bytes(probability: Any, class_axis: int) -> Any:
    """Round probabilities that sum to 1 along ``class_axis`` to bytes that sum to 255.

    The running sum over the classes is rounded and differenced: no byte is off by a whole step, errors do not add up to
    a bias, and the sum is exact. Pixels whose probabilities are all zero stay zero.

    Parameters
    ----------
    probability
        NumPy array or torch tensor of floats in [0, 1].

    Returns
    -------
    The same kind and shape, uint8.
    """
    xp: Any = np if isinstance(probability, np.ndarray) else importlib.import_module("torch")
    stored = xp.zeros_like(probability, dtype=xp.uint8)
    # Class by class: no temporary is larger than one class.
    total: Any = 0
    before: Any = 0
    for index in range(probability.shape[class_axis]):
        one = (slice(None),) * class_axis + (index,)
        total = total + probability[one]
        after = xp.round(total * SCALE)
        stored[one] = after - before
        before = after
    return stored


def argmax_label(probability: NDArray[Any]) -> NDArray[np.uint8]:
    """Label values (class + 1) of ``(class, y, x)`` probabilities; 0 where all are zero. The first of equals wins.

    A running maximum: many times faster than ``argmax`` along the first axis.
    """
    best = probability[0].copy()
    label: NDArray[np.uint8] = (best > 0).view(np.uint8)
    for index in range(1, len(probability)):
        # A later class has the greater label, so that the greatest label found so far is that of the last one to win.
        won = (probability[index] > best).view(np.uint8)
        won *= np.uint8(index + 1)
        np.maximum(label, won, out=label)
        np.maximum(best, probability[index], out=best)
    return label
