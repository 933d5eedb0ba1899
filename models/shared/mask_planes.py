"""One low-resolution logits plane at its full size, in blocks of columns, and the run lengths of its mask.

Every value is the one that `cv2.resize` gives for the whole plane, but for the last bit of some (its vector
instructions round the ends of rows differently). It resizes along rows first and along
columns then, so the two halves may be called one after the other; in between, columns that are nowhere
positive are left out (bilinear weights are never negative: they stay so), and the others are cut into blocks
that fit a processor's cache.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]

MASK_THRESHOLD = 0.0
# 1 MB of logits at a time: a click of somebody else waits for no more than that.
BLOCK_PIXELS = 1 << 18
# Blocks begin where the vector instructions of a whole row would, and so round as they do but for their ends.
ALIGNED_COLUMNS = 16


class FullSizePlane:
    """Logits [s, s] as they are at the original size [H, W], a block of columns at a time.

    A plane of few pixels, or of fewer rows than the low-resolution one (whose halfway step would be larger
    than the result), is one block.
    """

    def __init__(self, low_res: FloatArray, original_hw: tuple[int, int]) -> None:
        self._low_res = low_res
        self._height, self._width = original_hw
        self._in_one = (
            self._height * self._width <= BLOCK_PIXELS or self._height <= low_res.shape[0]
        )
        self._rows = low_res if self._in_one else _resized(low_res, (len(low_res), self._width))

    def blocks(
        self, *, positive_only: bool, threshold: float = MASK_THRESHOLD
    ) -> Iterator[tuple[int, int]]:
        """Column ranges [start, stop); with `positive_only` none where no pixel is above the threshold."""
        start, stop = 0, self._width
        step = self._width
        if positive_only:
            columns = np.flatnonzero(self._rows.max(axis=0) > threshold)
            if not columns.size:
                return
        if not self._in_one:
            step = max(BLOCK_PIXELS // self._height // ALIGNED_COLUMNS, 1) * ALIGNED_COLUMNS
            if positive_only:
                start = int(columns[0]) // ALIGNED_COLUMNS * ALIGNED_COLUMNS
                stop = int(columns[-1]) + 1
        for first in range(start, stop, step):
            yield first, min(first + step, self._width)

    def logits(self, start: int, stop: int) -> FloatArray:
        """Full-size logits of one block, [H, stop - start]."""
        if self._in_one:
            return _resized(self._low_res, (self._height, self._width))
        columns = np.ascontiguousarray(self._rows[:, start:stop])
        return _resized(columns, (self._height, stop - start))


class RunLengths:
    """COCO's uncompressed run lengths of a mask [H, W]: column after column, zeros first.

    Blocks of columns are added from left to right; what is left out between them is zeros.
    """

    def __init__(self, hw: tuple[int, int]) -> None:
        self._height, self._width = hw
        self._changes: list[IntArray] = [np.zeros(1, np.int64)]
        self._inside = False
        self._stop = 0

    def add(self, start: int, block: BoolArray) -> None:
        """A block [H, n] whose first column is `start`."""
        self._fill_up_to(start)
        offset = start * self._height
        bits = block.ravel(order="F")
        if bits[0] != self._inside:
            self._changes.append(np.array([offset], np.int64))
        self._changes.append(np.flatnonzero(bits[1:] != bits[:-1]) + (offset + 1))
        self._inside = bool(bits[-1])
        self._stop = start + block.shape[1]

    def lengths(self) -> IntArray:
        """All run lengths, the last one up to the mask's end."""
        self._fill_up_to(self._width)
        end = np.array([self._height * self._width], np.int64)
        return np.diff(np.concatenate([*self._changes, end]))

    def _fill_up_to(self, column: int) -> None:
        if self._inside and self._stop < column:
            self._changes.append(np.array([self._stop * self._height], np.int64))
            self._inside = False


def _resized(plane: FloatArray, hw: tuple[int, int]) -> FloatArray:
    resized: FloatArray = cv2.resize(plane, hw[::-1], interpolation=cv2.INTER_LINEAR)
    return resized
