"""Windows that cover an image: pure arithmetic on corners, in pixels of the image."""

from __future__ import annotations


def spread(length_px: int, window_px: int) -> list[int]:
    """Return the first pixels of windows that cover an axis evenly, as SAM-Path's authors cut BCSS.

    n = ceil(length / window) windows, the first at 0 and the last at the end; the space between neighbours is the
    same but for a remainder, which the first ones take, a pixel each. One window at 0 covers an axis that is shorter.

    Raises
    ------
    ValueError
        If a length is not positive.
    """
    if length_px < 1 or window_px < 1:
        raise ValueError(f"lengths must be positive, not {length_px} and {window_px}")
    count = -(-length_px // window_px)
    if count == 1:
        return [0]
    step, remainder = divmod(length_px - window_px, count - 1)
    return [k * step + min(k, remainder) for k in range(count)]


def cover(width_px: int, height_px: int, window_px: int) -> list[tuple[int, int]]:
    """Return the corners (x, y) of square windows that cover an image, row by row; see :func:`spread`."""
    columns, rows = spread(width_px, window_px), spread(height_px, window_px)
    return [(x, y) for y in rows for x in columns]
