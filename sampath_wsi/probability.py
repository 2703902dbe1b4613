"""Probabilities of classes: as bytes, the most probable class, and how uncertain they are.

A byte v is p = v / 255, and the bytes of a pixel sum to exactly 255. Rounding to bytes works alike on NumPy arrays and
torch tensors, so that the device that computes probabilities can also shrink them.
"""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

SCALE = 255
PERCENT = 100


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


def argmax_label(probability: NDArray[np.number]) -> NDArray[np.uint8]:
    """Return the labels (class + 1) of ``(class, y, x)`` probabilities; 0 where all are zero. The first of equals wins.

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


def entropy_percent(probability: NDArray[np.number]) -> NDArray[np.uint8]:
    """Return how evenly probability is spread over the classes, in percent of the most that is possible.

    The Shannon entropy in bits, ``-sum p log2 p``, over ``log2(number of classes)``: 0 where one class is certain, 100
    where all are equally likely.

    Parameters
    ----------
    probability
        ``(class, y, x)``, uint8 (p = v / 255) or floats; where all are zero the entropy is 0.
    """
    bits = np.zeros(probability.shape[1:], np.float32)
    for plane in probability:
        bits += entropy_term_bit(plane)
    bits *= np.float32(PERCENT / math.log2(max(2, len(probability))))
    percent: NDArray[np.uint8] = np.rint(bits).astype(np.uint8)
    return percent


def entropy_term_bit(probability: NDArray[Any]) -> NDArray[np.float32]:
    """Return ``-p log2 p``, a share of the entropy, of bytes (p = v / 255) or floats of any shape; 0 where p is 0."""
    return _OF_BYTES[probability] if probability.dtype == np.uint8 else _minus_p_log2_p(probability)


def _minus_p_log2_p(p: NDArray[np.floating]) -> NDArray[np.float32]:
    log2 = np.log2(p, where=p > 0, out=np.zeros(p.shape, p.dtype))
    bits: NDArray[np.float32] = (np.negative(p) * log2 + 0.0).astype(np.float32)
    return bits


_OF_BYTES = _minus_p_log2_p(np.arange(SCALE + 1) / SCALE)
