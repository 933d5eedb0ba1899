"""Masks as the part of them that has foreground: what tools draw is small, and their images are large."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from triton_sam2 import GeneratedMasks, Segmentation
from triton_sam2._results.masks import CocoRle

from front.refusals import too_large

# COCO's text of counts: 5 bits a character from this one on, the next bit says that more follow.
_FIRST_CHARACTER, _DATA_BITS, _MORE, _SIGN = 48, 5, 0x20, 0x10


@dataclass(frozen=True)
class CroppedMask:
    """A mask's rows and columns with foreground, 0 and 1; one pixel of background for an empty one."""

    pixels: npt.NDArray[np.uint8]
    left: int
    top: int
    original_hw: tuple[int, int]

    @classmethod
    def of(cls, mask: npt.NDArray[np.uint8]) -> CroppedMask:
        """From a whole mask [H, W]."""
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not rows.size:
            return cls(np.zeros((1, 1), np.uint8), 0, 0, mask.shape)  # type: ignore[arg-type]
        top, bottom, left, right = (int(i) for i in (rows[0], rows[-1], columns[0], columns[-1]))
        part = np.ascontiguousarray(mask[top : bottom + 1, left : right + 1] > 0)
        return cls(part.astype(np.uint8), left, top, mask.shape)  # type: ignore[arg-type]

    @property
    def bounds(self) -> tuple[int, int, int, int]:
        """x0, y0, x1, y1, the last row and column included."""
        height, width = self.pixels.shape
        return self.left, self.top, self.left + width - 1, self.top + height - 1

    @property
    def is_empty(self) -> bool:
        """Whether there is no foreground."""
        return not self.pixels.any()


def segmented_masks(result: Segmentation, most_pixels: int) -> list[tuple[CroppedMask, float]]:
    """The masks of a result (format rle) with their predicted IoU, object by object, candidate by candidate.

    Raises:
        Refusal: where their parts with foreground have more pixels together (max_rendered_pixels).
    """
    rles = [rle for row in result.rles for rle in row]
    masks = _unpacked(iter(rles), most_pixels, "max_rendered_pixels")
    return list(zip(masks, result.iou_predictions.reshape(-1).tolist(), strict=True))


def generated_masks(
    result: GeneratedMasks, most_pixels: int
) -> Iterator[tuple[CroppedMask, float]]:
    """The same of everything in an image, one after the other (max_generated_pixels)."""
    rles = (result.rle(index) for index in range(len(result)))
    masks = _unpacked(rles, most_pixels, "max_generated_pixels")
    return zip(masks, result.predicted_iou.tolist(), strict=True)


def _unpacked(rles: Iterator[CocoRle], most_pixels: int, limit: str) -> Iterator[CroppedMask]:
    pixels = 0
    for rle in rles:
        runs = _Runs.read(rle)
        pixels += runs.box_pixels
        if pixels > most_pixels:
            raise too_large(
                f"expected masks of at most {most_pixels} pixels together ({limit}), got more: mark fewer or"
                " smaller objects at once"
            )
        yield runs.mask()


@dataclass(frozen=True)
class _Runs:
    """Runs of foreground down the columns, none in more than one: column, first row, row after the last."""

    columns: npt.NDArray[np.int64]
    tops: npt.NDArray[np.int64]
    bottoms: npt.NDArray[np.int64]
    original_hw: tuple[int, int]

    @classmethod
    def read(cls, rle: CocoRle) -> _Runs:
        height, width = rle["size"]
        ends = np.cumsum(_counts(rle["counts"]))
        # Background and foreground by turns, background first; a last background may be missing.
        starts, stops = ends[0::2][: len(ends) // 2], ends[1::2]
        is_run = stops > starts
        starts, stops = starts[is_run], stops[is_run]
        first, last = starts // height, (stops - 1) // height
        spans = last - first + 1
        # A run that goes on in the next column is one run in each.
        offsets = np.arange(int(spans.sum())) - np.repeat(np.cumsum(spans) - spans, spans)
        columns = np.repeat(first, spans) + offsets
        tops = np.maximum(np.repeat(starts, spans) - columns * height, 0)
        bottoms = np.minimum(np.repeat(stops, spans) - columns * height, height)
        return cls(columns, tops, bottoms, (height, width))

    @property
    def box_pixels(self) -> int:
        """How many pixels the mask's box has."""
        if not self.columns.size:
            return 1
        return int(
            (self.columns[-1] - self.columns[0] + 1) * (self.bottoms.max() - self.tops.min())
        )

    def mask(self) -> CroppedMask:
        """The mask itself."""
        if not self.columns.size:
            return CroppedMask(np.zeros((1, 1), np.uint8), 0, 0, self.original_hw)
        left, top = int(self.columns[0]), int(self.tops.min())
        width, height = int(self.columns[-1]) - left + 1, int(self.bottoms.max()) - top
        # Where foreground begins and ends, summed down each column; one row more for what ends at the last.
        turns = np.zeros((width, height + 1), np.int8)
        turns[self.columns - left, self.tops - top] += 1
        turns[self.columns - left, self.bottoms - top] -= 1
        pixels = np.cumsum(turns, axis=1, dtype=np.int8)[:, :-1].T
        return CroppedMask(np.ascontiguousarray(pixels).view(np.uint8), left, top, self.original_hw)


def _counts(text: str) -> npt.NDArray[np.int64]:
    """COCO's compressed counts as numbers."""
    codes = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int64) - _FIRST_CHARACTER
    if not codes.size:
        return np.zeros(0, np.int64)
    is_last = (codes & _MORE) == 0
    starts = np.concatenate([[0], np.flatnonzero(is_last)[:-1] + 1])
    lengths = np.diff(starts, append=codes.size)
    places = np.arange(codes.size) - np.repeat(starts, lengths)
    counts = np.add.reduceat((codes & (_MORE - 1)) << (_DATA_BITS * places), starts)
    is_negative = (codes[is_last] & _SIGN) != 0
    counts[is_negative] -= 1 << (_DATA_BITS * lengths[is_negative])
    # From the fourth on each is told as its difference to the one before the last.
    counts[1::2] = np.cumsum(counts[1::2])
    counts[2::2] = np.cumsum(counts[2::2])
    return counts
