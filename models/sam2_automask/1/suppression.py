"""Which of several overlapping masks stay, by their boxes or by their pixels.

Box suppression is torchvision's `nms`, as the generator calls it: in order of score (equal ones in the
order they came), a box is dropped when its IoU with one that stays exceeds the threshold.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

FloatArray = npt.NDArray[np.float32]
IndexArray = npt.NDArray[np.intp]
# Between two questions whether anybody still waits.
STEPS_AT_A_TIME = 64


def suppress_boxes(
    boxes_xyxy: FloatArray, scores: FloatArray, iou_threshold: float, check: Callable[[], None]
) -> IndexArray:
    """Indices of the boxes that stay, best first. `check` may raise, to give the work up."""
    boxes = boxes_xyxy.astype(np.float32)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    waiting = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while waiting.size:
        if len(kept) % STEPS_AT_A_TIME == 0:
            check()
        best, waiting = waiting[0], waiting[1:]
        kept.append(int(best))
        corners = np.maximum(boxes[best, :2], boxes[waiting, :2])
        extents = np.minimum(boxes[best, 2:], boxes[waiting, 2:]) - corners
        shared = np.prod(np.maximum(extents, 0), axis=1)
        union = areas[best] + areas[waiting] - shared
        # Two boxes without an area have no IoU and let each other be, as 0/0 > threshold does in the
        # reference.
        iou = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
        waiting = waiting[iou <= np.float32(iou_threshold)]
    return np.array(kept, np.intp)


def suppress_masks(
    counts: list[bytes],
    original_hw: tuple[int, int],
    scores: FloatArray,
    check: Callable[[], None],
    *,
    iou_threshold: float | None = None,
    containment_threshold: float | None = None,
) -> IndexArray:
    """Indices of the masks that stay, best first; a mask goes for its IoU with one that stays, or for
    containment.

    Containment is the shared part of the smaller of the two masks; None leaves a threshold out.
    """
    rles = [{"size": list(original_hw), "counts": each} for each in counts]
    areas = coco_mask.area(rles).astype(np.float64) if rles else np.zeros(0)
    boxes = coco_mask.toBbox(rles).reshape(-1, 4) if rles else np.zeros((0, 4))
    starts, ends = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    kept: list[int] = []
    for step, index in enumerate(np.argsort(-scores, kind="stable")):
        if step % STEPS_AT_A_TIME == 0:
            check()
        others = np.array(kept, np.intp)
        touching = (starts[others] < ends[index]).all(axis=1) & (ends[others] > starts[index]).all(
            axis=1
        )
        others = others[touching]
        if others.size:
            # With "crowd" set, COCO's measure is the share of the first mask that lies in the second.
            crowd = np.ones(len(others), np.uint8)
            inside = coco_mask.iou([rles[index]], [rles[other] for other in others], crowd)[0]
            shared = inside * areas[index]
            smaller = np.maximum(np.minimum(areas[index], areas[others]), 1)
            union = np.maximum(areas[index] + areas[others] - shared, 1)
            if iou_threshold is not None and (shared / union > iou_threshold).any():
                continue
            if (
                containment_threshold is not None
                and (shared / smaller > containment_threshold).any()
            ):
                continue
        kept.append(int(index))
    return np.array(kept, np.intp)
