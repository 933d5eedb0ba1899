"""Label Studio's run-length code of brush masks.

The picture behind it is RGBA with each of a pixel's four values the same, row by row. A stream of bits, the
highest first: the number of values in 32, the width of a value less 1 in 5, four widths of run lengths less
1 in 4 each; then for each run a 1, the number of its width in 2, its length less 1 in that width, its value
in 8.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from front.tools.masks import CroppedMask

_VALUES_PER_PIXEL = 4
_VALUE_BITS = 8
_LENGTH_BITS = np.array([3, 4, 8, 16])
_LONGEST_RUN = 1 << 16
_RUN_HEAD_BITS = 3  # the mark of a run, and which width
_WIDEST_RUN = _RUN_HEAD_BITS + int(_LENGTH_BITS[-1]) + _VALUE_BITS
# Runs that are laid out bit by bit at once: 27 bytes each.
_RUNS_AT_ONCE = 1 << 16


def encode_brush_mask(mask: CroppedMask) -> bytes:
    """A mask ► the bytes of its code; foreground is 255."""
    packed: list[bytes] = []
    left = np.zeros(0, np.uint8)
    for bits in _bits(mask):
        together = np.concatenate([left, bits])
        whole = len(together) // 8 * 8
        packed.append(np.packbits(together[:whole]).tobytes())
        left = together[whole:]
    # Filled up to a whole byte, and by one more where there is nothing to fill up, as its own encoder does.
    packed.append(np.packbits(np.concatenate([left, np.zeros(8 - len(left), np.uint8)])).tobytes())
    return b"".join(packed)


def _bits(mask: CroppedMask) -> Iterator[npt.NDArray[np.uint8]]:
    head = [(math.prod(mask.original_hw) * _VALUES_PER_PIXEL, 32), (_VALUE_BITS - 1, 5)]
    head += [(int(width) - 1, 4) for width in _LENGTH_BITS]
    text = "".join(f"{number:0{width}b}" for number, width in head)
    yield np.frombuffer(text.encode(), np.uint8) - np.uint8(ord("0"))
    lengths, values = _runs(mask)
    for start in range(0, len(lengths), _RUNS_AT_ONCE):
        yield _run_bits(
            lengths[start : start + _RUNS_AT_ONCE], values[start : start + _RUNS_AT_ONCE]
        )


def _runs(mask: CroppedMask) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Lengths in values and values of the runs, none longer than a code can say."""
    # Where foreground begins and ends in each row, as places in the whole picture.
    inside = np.pad(mask.pixels, ((0, 0), (1, 1)))
    rows, columns = np.nonzero(inside[:, 1:] != inside[:, :-1])
    turns = (rows + mask.top) * mask.original_hw[1] + columns + mask.left
    # A row that ends where the next begins is one run with it: both turns fall away.
    turns, times = np.unique(turns, return_counts=True)
    turns = turns[times == 1]
    lengths = np.diff(turns, prepend=0, append=math.prod(mask.original_hw)) * _VALUES_PER_PIXEL
    values = np.where(np.arange(len(lengths)) % 2, 255, 0)
    lengths, values = lengths[lengths > 0], values[lengths > 0]
    pieces = -(-lengths // _LONGEST_RUN)
    split = np.full(int(pieces.sum()), _LONGEST_RUN, np.int64)
    split[np.cumsum(pieces) - 1] = lengths - (pieces - 1) * _LONGEST_RUN
    return split, np.repeat(values, pieces)


def _run_bits(
    lengths: npt.NDArray[np.int64], values: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint8]:
    which = np.searchsorted(1 << _LENGTH_BITS, lengths)
    widths = _LENGTH_BITS[which]
    codes = (((0b100 | which) << widths | (lengths - 1)) << _VALUE_BITS) | values
    # Each code at the right end of a row; what stands before it in the row is left out.
    columns = np.arange(_WIDEST_RUN - 1, -1, -1)
    rows = (codes[:, None] >> columns) & 1
    is_code = columns < (_RUN_HEAD_BITS + widths + _VALUE_BITS)[:, None]
    bits: npt.NDArray[np.uint8] = rows[is_code].astype(np.uint8)
    return bits
