"""PyTorch's antialiased bilinear resize, which Meta's predictor uses, in floats all the way.

Both passes are products of matrices, which BLAS does in vector instructions, on bands of rows that stay in a
processor's cache. Why not one that exists (12 megapixels, one thread; figures in docker/README.md): Pillow's
own in floats takes four times as long; those of 8-bit pictures round between their passes; OpenCV has no such
filter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided
from pixel_types import GREY_LEVELS, Float32Array, PixelType

UInt8Array = npt.NDArray[np.uint8]

# Rows of the result that are made at once, unless their source takes more memory than this.
BAND_ROWS, BAND_BYTES = 16, 8 << 20
# Source rows that are taken apart into planes at once.
SPLIT_ROWS = 16
# Columns of the result that one product gives, unless they are made of more source columns than this: the
# more, the fewer calls, and the more zeros in its matrix.
BLOCK_COLUMNS, BLOCK_TAPS = 32, 512
FLOAT_BYTES = 4


def resize_to_planes(
    pixels: UInt8Array, side: int, pixel_type: PixelType = GREY_LEVELS
) -> npt.NDArray[Any]:
    """Pixels [H, W, 4] of three colours, squashed to planes [3, side, side] of a type."""
    height, width, _ = pixels.shape
    rows, columns = Taps.of(height, side), _ColumnProducts(width, side)
    planes = np.empty((3, side, side), pixel_type.dtype)
    row_bytes = 3 * FLOAT_BYTES * columns.padded_width
    band_rows = max(1, min(BAND_ROWS, BAND_BYTES * side // (row_bytes * max(height, side))))
    band = np.empty((band_rows, 3, side), np.float32)
    if height <= side:
        # Few rows become more: across first, while they are few.
        narrow = np.empty((height, 3, side), np.float32)
        for top in range(0, height, band_rows):
            bottom = min(top + band_rows, height)
            columns.apply(columns.planes_of(pixels[top:bottom]), narrow[top:bottom])
    else:
        mixed = np.zeros((band_rows, 3, columns.padded_width), np.float32)
    for begin in range(0, side, band_rows):
        end = min(begin + band_rows, side)
        if height <= side:
            for row in range(begin, end):
                _mix_rows(rows, row, narrow, 0, band[row - begin])
        else:
            top = int(rows.first[begin])
            source = columns.planes_of(pixels[top : rows.end[end - 1]])
            for row in range(begin, end):
                _mix_rows(rows, row, source, top, mixed[row - begin])
            columns.apply(mixed[: end - begin], band[: end - begin])
        planes[:, begin:end] = pixel_type.of(band[: end - begin]).transpose(1, 0, 2)
    return planes


@dataclass(frozen=True)
class Taps:
    """Which of `length` samples make each of `side` results: first to end, with weights of sum 1."""

    first: npt.NDArray[np.int64]
    end: npt.NDArray[np.int64]
    weights: Float32Array  # [side, most taps], zeros behind a result's last one

    @classmethod
    def of(cls, length: int, side: int) -> Taps:
        """Those of a triangle as wide as two results, or as two samples where these are wider."""
        scale = length / side
        reach = max(scale, 1.0)
        centre = (np.arange(side) + 0.5) * scale
        first = np.maximum((centre - reach + 0.5).astype(np.int64), 0)
        end = np.minimum((centre + reach + 0.5).astype(np.int64), length)
        positions = first[:, None] + np.arange(int((end - first).max()))
        weights = np.maximum(0, 1 - np.abs(positions + 0.5 - centre[:, None]) / reach)
        weights[positions >= end[:, None]] = 0
        weights /= weights.sum(1, keepdims=True)
        return cls(first, end, weights.astype(np.float32))


def _mix_rows(taps: Taps, row: int, source: Float32Array, top: int, into: Float32Array) -> None:
    """One row of the result, from source rows of which the first is row `top` of the picture."""
    first, end = int(taps.first[row]), int(taps.end[row])
    flat = source.reshape(len(source), -1)
    np.dot(taps.weights[row, : end - first], flat[first - top : end - top], out=into.reshape(-1))


class _ColumnProducts:
    """The pass across, as one product for each block of columns; source rows are padded for it."""

    def __init__(self, width: int, side: int) -> None:
        taps, scale = Taps.of(width, side), width / side
        self._block = math.gcd(side, BLOCK_COLUMNS)
        while self._block > 1 and self._block * scale > BLOCK_TAPS:
            self._block //= 2
        # Blocks begin in even steps, so that one call makes all of them. A block's first column reaches back
        # by `scale` from where the block begins; the picture is moved to the right by that.
        self._margin = math.ceil(scale)
        self._step = int(self._block * scale)
        begins = np.arange(side) // self._block * self._step
        offsets = taps.first + self._margin - begins
        self._taken = int((offsets + taps.end - taps.first).max())
        blocks = side // self._block
        self._weights = np.zeros((blocks, self._taken, self._block), np.float32)
        for column in range(side):
            count, offset = int(taps.end[column] - taps.first[column]), int(offsets[column])
            block, within = divmod(column, self._block)
            self._weights[block, offset : offset + count, within] = taps.weights[column, :count]
        self._width = width
        self._split = [np.empty((SPLIT_ROWS, width), np.uint8) for _ in range(4)]
        self.padded_width = max(self._margin + width, (blocks - 1) * self._step + self._taken)
        self._buffer = np.zeros((0, 3, self.padded_width), np.float32)

    def planes_of(self, pixels: UInt8Array) -> Float32Array:
        """Rows [n, W, 4] ► [n, 3, padded_width], valid until the next call."""
        if len(pixels) > len(self._buffer):
            self._buffer = np.zeros((len(pixels), 3, self.padded_width), np.float32)
        inner = slice(self._margin, self._margin + self._width)
        for top in range(0, len(pixels), SPLIT_ROWS):
            rows = pixels[top : top + SPLIT_ROWS]
            split = [plane[: len(rows)] for plane in self._split]
            cv2.split(rows, split)
            for plane in range(3):
                np.copyto(self._buffer[top : top + len(rows), plane, inner], split[plane])
        return self._buffer[: len(pixels)]

    def apply(self, source: Float32Array, into: Float32Array) -> None:
        """Rows [n, 3, padded_width] ► [n, 3, side]."""
        row_bytes = FLOAT_BYTES * self.padded_width
        blocks = as_strided(
            source,
            (len(self._weights), 3 * len(source), self._taken),
            (FLOAT_BYTES * self._step, row_bytes, FLOAT_BYTES),
            writeable=False,
        )
        products = np.matmul(blocks, self._weights)
        into.reshape(3 * len(source), -1, self._block)[:] = products.transpose(1, 0, 2)
