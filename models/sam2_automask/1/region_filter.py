"""Holes and specks of a finished mask, in pixels of the image, without a GPU.

Source of the semantics: `remove_small_regions` of the SAM 2 repository's `utils/amg.py` (which nothing
calls there): regions touch by their corners too; where every part is too small, the largest stays.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.int32]


def mend_regions(mask: UInt8Array, min_region_area: int) -> tuple[UInt8Array, bool]:
    """The mask [H, W] without holes, then specks, smaller than so many pixels; and whether it changed."""
    if not mask.any():  # a mask of nothing is no mask with one large hole
        return mask, False
    holes, hole_areas = _regions((mask == 0).astype(np.uint8))
    small = np.flatnonzero(hole_areas < min_region_area) + 1
    filled = (
        (mask | _any_of(holes, small, len(hole_areas))).astype(np.uint8) if small.size else mask
    )
    parts, part_areas = _regions(filled)
    large = np.flatnonzero(part_areas >= min_region_area) + 1
    if large.size == len(part_areas):
        return filled, bool(small.size)
    if not large.size:
        large = np.array([part_areas.argmax() + 1])
    return _any_of(parts, large, len(part_areas)), True


def _regions(mask: UInt8Array) -> tuple[IntArray, IntArray]:
    """Labels [H, W], 0 outside, and the areas of the regions 1, 2, …"""
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(
        np.ascontiguousarray(mask), connectivity=8
    )
    return labels, statistics[1:, cv2.CC_STAT_AREA]


def _any_of(labels: IntArray, chosen: npt.NDArray[np.intp], regions: int) -> UInt8Array:
    is_chosen = np.zeros(regions + 1, np.uint8)
    is_chosen[chosen] = 1
    return is_chosen[labels]
