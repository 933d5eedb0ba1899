"""Pure functions on masks [H, W] of 0 and 1, and the forms that other tools want them in."""

from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from triton_sam2._extras import require

FEWEST_OUTLINE_POINTS = 3


class CocoRle(TypedDict):
    """A mask as COCO's compressed run-length code, as pycocotools takes it."""

    size: list[int]
    counts: str


class CocoAnnotation(TypedDict):
    """One object as an entry of a COCO results file."""

    image_id: int | str
    category_id: int
    segmentation: CocoRle
    bbox: list[float]
    area: int
    score: float


def mask_to_rle(mask: NDArray[np.uint8]) -> CocoRle:
    """Run-length code of a mask. Needs pycocotools."""
    encoded = require("pycocotools.mask", "encoding RLE masks").encode(np.asfortranarray(mask))
    height, width = encoded["size"]
    return {"size": [height, width], "counts": encoded["counts"].decode()}


def rle_to_mask(rle: CocoRle) -> NDArray[np.uint8]:
    """The mask of a run-length code. Needs pycocotools."""
    mask: NDArray[np.uint8] = require("pycocotools.mask", "decoding RLE masks").decode(rle)
    return mask


def mask_to_polygons(mask: NDArray[np.uint8], tolerance_px: float) -> list[NDArray[np.float32]]:
    """Outer outlines, [K, 2] x, y each, through the centres of the border's pixels. Needs OpenCV.

    K is 3 or more: other tools refuse fewer points, or take two for a box. A speck of one pixel or one
    straight line of them, which has no such outline, is left out.
    """
    cv2 = require("cv2", "outlines of masks")
    # Without simplification every border pixel is kept where the outline turns, so that filling it is exact.
    contours, _ = cv2.findContours(
        np.ascontiguousarray(mask), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    outlines = [contour for contour in contours if len(contour) >= FEWEST_OUTLINE_POINTS]
    if tolerance_px > 0:
        outlines = [_simplified(cv2, outline, tolerance_px) for outline in outlines]
    return [outline.reshape(-1, 2).astype(np.float32) for outline in outlines]


def _simplified(cv2: Any, outline: NDArray[np.int32], tolerance_px: float) -> NDArray[np.int32]:
    """An outline of fewer points; itself where the tolerance would leave nothing of it."""
    shorter: NDArray[np.int32] = cv2.approxPolyDP(outline, tolerance_px, True)
    return shorter if len(shorter) >= FEWEST_OUTLINE_POINTS else outline


def rle_area(rle: CocoRle) -> int:
    """How many pixels a mask has. Needs pycocotools."""
    return int(require("pycocotools.mask", "areas of RLE masks").area(rle))


def rle_box_xywh(rle: CocoRle) -> list[float]:
    """The smallest box round a mask, as COCO writes it; zeros for an empty mask. Needs pycocotools."""
    box: list[float] = require("pycocotools.mask", "boxes of RLE masks").toBbox(rle).tolist()
    return box


def take_candidates(values: NDArray[Any], indices: NDArray[np.intp]) -> NDArray[Any]:
    """One candidate per object: [B, M, ...] and indices [B] ► [B, 1, ...]."""
    taken: NDArray[Any] = values[np.arange(len(values)), indices][:, None]
    return taken
