"""Masks [H, W] of 0 and 1 in the forms that tools draw."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from triton_sam2._results.masks import FEWEST_OUTLINE_POINTS, mask_to_polygons

# Shares of the image and of the mean area, beyond which an outline is none of an object.
_WHOLE_IMAGE, _SPECK = 0.9, 0.2


def cropped_mask(
    mask: npt.NDArray[np.uint8],
) -> tuple[npt.NDArray[np.uint8], tuple[int, int, int, int]]:
    """The part of a mask that has foreground, and where it lies: x0, y0, x1, y1, the last included."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return mask[:1, :1], (0, 0, 0, 0)
    x0, y0, x1, y1 = (int(edge) for edge in (columns[0], rows[0], columns[-1], rows[-1]))
    return np.ascontiguousarray(mask[y0 : y1 + 1, x0 : x1 + 1]), (x0, y0, x1, y1)


def simplified_outlines(
    mask: npt.NDArray[np.uint8], epsilon_factor: float
) -> list[npt.NDArray[np.float32]]:
    """Outer outlines of a mask as X-AnyLabeling has them: no specks, and no more corners than needed.

    Left out are parts smaller than a fifth of the mean, and, where there are others, what covers more than
    nine tenths of the image. An outline may leave the border by `epsilon_factor` of its length.
    """
    outlines = mask_to_polygons(mask, 0.0)
    areas = [float(cv2.contourArea(outline)) for outline in outlines]
    if len(outlines) > 1:
        kept = [area <= _WHOLE_IMAGE * mask.size for area in areas]
        outlines = [outline for outline, is_kept in zip(outlines, kept, strict=True) if is_kept]
        areas = [area for area, is_kept in zip(areas, kept, strict=True) if is_kept]
        smallest = _SPECK * sum(areas) / max(1, len(areas))
        outlines = [each for each, area in zip(outlines, areas, strict=True) if area >= smallest]
    return [_with_fewer_corners(outline, epsilon_factor) for outline in outlines]


def _with_fewer_corners(
    outline: npt.NDArray[np.float32], epsilon_factor: float
) -> npt.NDArray[np.float32]:
    corners = outline.reshape(-1, 1, 2)
    length = cv2.arcLength(corners, True)
    shorter: npt.NDArray[np.float32] = cv2.approxPolyDP(corners, epsilon_factor * length, True)
    return shorter.reshape(-1, 2) if len(shorter) >= FEWEST_OUTLINE_POINTS else outline
