"""Masks [H, W] of 0 and 1 in the forms that tools draw."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def cropped_mask(
    mask: npt.NDArray[np.uint8],
) -> tuple[npt.NDArray[np.uint8], tuple[int, int, int, int]]:
    """The part of a mask that has foreground, and where it lies: x0, y0, x1, y1, the last included."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return mask[:1, :1], (0, 0, 0, 0)
    x0, y0, x1, y1 = (int(edge) for edge in (columns[0], rows[0], columns[-1], rows[-1]))
    return np.ascontiguousarray(mask[y0 : y1 + 1, x0 : x1 + 1]), (x0, y0, x1, y1)
