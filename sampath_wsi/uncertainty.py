"""How uncertain a model is: the entropy of its probabilities."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sampath_wsi.probability import SCALE

PERCENT = 100


def entropy_percent(probability: NDArray[Any]) -> NDArray[np.uint8]:
    """How evenly probability is spread over the classes, in percent of the most that is possible.

    The Shannon entropy in bits, ``-sum p log2 p``, over ``log2(number of classes)``: 0 where one class is certain, 100
    where all are equally likely.

    Parameters
    ----------
    probability
        ``(class, y, x)``, uint8 (p = v / 255) or floats; where all are zero the entropy is 0.
    """
    bits = np.zeros(probability.shape[1:], np.float32)
    for plane in probability:
        bits += _BITS[plane] if plane.dtype == np.uint8 else _bits(plane)
    bits *= np.float32(PERCENT / math.log2(max(2, len(probability))))
    percent: NDArray[np.uint8] = np.rint(bits).astype(np.uint8)
    return percent


def _bits(p: NDArray[np.floating]) -> NDArray[np.float32]:
    """``-p log2 p``."""
    bits: NDArray[np.float32] = (-p * np.log2(p, where=p > 0, out=np.zeros(p.shape, p.dtype))).astype(np.float32)
    return bits


_BITS = _bits(np.arange(SCALE + 1) / SCALE)
