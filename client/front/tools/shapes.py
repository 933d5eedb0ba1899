"""Outer outlines of masks, [K, 2] x, y in pixels of the whole image, through the centres of pixels."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt
from triton_sam2._results.masks import FEWEST_OUTLINE_POINTS, mask_to_polygons

from front.tools.masks import CroppedMask

Outline = npt.NDArray[np.float32]
# Shares of the image and of the mean area, beyond which an outline is none of an object.
_WHOLE_IMAGE, _SPECK = 0.9, 0.2


def outer_outlines(mask: CroppedMask, tolerance_px: float) -> list[Outline]:
    """Those of the client, which may leave the border by a tolerance to have fewer corners."""
    offset = np.array([mask.left, mask.top], np.float32)
    return [outline + offset for outline in mask_to_polygons(mask.pixels, tolerance_px)]


def simplified_outlines(mask: CroppedMask, epsilon_factor: float) -> list[Outline]:
    """Outlines as X-AnyLabeling has them: no specks, and no more corners than needed.

    Left out are parts smaller than a fifth of the mean, and, where there are others, what covers more than
    nine tenths of the image. An outline may leave the border by `epsilon_factor` of its length.
    """
    outlines = outer_outlines(mask, 0.0)
    areas = [float(cv2.contourArea(outline)) for outline in outlines]
    if len(outlines) > 1:
        largest = _WHOLE_IMAGE * math.prod(mask.original_hw)
        kept = [pair for pair in zip(outlines, areas, strict=True) if pair[1] <= largest]
        smallest = _SPECK * sum(area for _, area in kept) / max(1, len(kept))
        outlines = [outline for outline, area in kept if area >= smallest]
    return [_with_fewer_corners(outline, epsilon_factor) for outline in outlines]


def _with_fewer_corners(outline: Outline, epsilon_factor: float) -> Outline:
    corners = outline.reshape(-1, 1, 2)
    length = cv2.arcLength(corners, True)
    shorter: Outline = cv2.approxPolyDP(corners, epsilon_factor * length, True)
    return shorter.reshape(-1, 2) if len(shorter) >= FEWEST_OUTLINE_POINTS else outline
