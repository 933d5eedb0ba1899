"""Pure functions on masks [H, W] of 0 and 1, and the forms that other tools want them in."""

from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from triton_sam2._extras import require


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
    """Outer outlines, [K, 2] x, y each, through the centres of the border's pixels. Needs OpenCV."""
    cv2 = require("cv2", "outlines of masks")
    # Without simplification every border pixel is kept where the outline turns, so that filling it is exact.
    contours, _ = cv2.findContours(
        np.ascontiguousarray(mask), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    if tolerance_px > 0:
        contours = [cv2.approxPolyDP(contour, tolerance_px, True) for contour in contours]
    return [contour.reshape(-1, 2).astype(np.float32) for contour in contours]


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
