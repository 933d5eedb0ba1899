"""Classical segmentation from the same clicks and boxes: what the demo model has to beat."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from export.demo_model.fields import ByteImage
from export.demo_model.prompts import Mask
from export.demo_model.scoring import ScoredScene, mask_iou

FLOOD_TOLERANCES = (6, 10, 16, 24, 36, 50, 70)  # of 255, in every channel
_GRABCUT_ITERATIONS = 4


def flood_fill(image: ByteImage, click: tuple[int, int], tolerance: int) -> Mask:
    """Pixels connected to the click whose colour is within `tolerance` of the click's."""
    height, width = image.shape[:2]
    filled = np.zeros((height + 2, width + 2), np.uint8)
    flags = 4 | cv2.FLOODFILL_MASK_ONLY | cv2.FLOODFILL_FIXED_RANGE | (1 << 8)
    smooth = cv2.GaussianBlur(image, (0, 0), 1.5)
    cv2.floodFill(smooth, filled, click, 0, (tolerance,) * 3, (tolerance,) * 3, flags)
    return np.asarray(filled[1:-1, 1:-1] > 0)


def otsu_component(image: ByteImage, click: tuple[int, int]) -> Mask:
    """The component around the click on its side of Otsu's threshold."""
    grey = cv2.cvtColor(cv2.GaussianBlur(image, (0, 0), 1.5), cv2.COLOR_RGB2GRAY)
    _, bright = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    x, y = click
    _, components = cv2.connectedComponents((bright == bright[y, x]).astype(np.uint8))
    return np.asarray(components == components[y, x])


def box_rectangle(image: ByteImage, box: NDArray[np.float32]) -> Mask:
    x0, y0, x1, y1 = (int(v) for v in box)
    mask = np.zeros(image.shape[:2], bool)
    mask[y0 : y1 + 1, x0 : x1 + 1] = True
    return mask


def grab_cut(image: ByteImage, box: NDArray[np.float32], around: float | None = None) -> Mask:
    """OpenCV's grabCut started from the box, on the whole image as in OpenCV's documentation.

    With `around` only a window counts that exceeds the box by so many box sizes on each side:
    then the background is the object's own, without its neighbours, and the result much better.
    """
    height, width = image.shape[:2]
    x0, y0, x1, y1 = (int(v) for v in box)
    box_w, box_h = x1 - x0 + 1, y1 - y0 + 1
    reach_x, reach_y = (width, height) if around is None else (around * box_w, around * box_h)
    left, top = max(0, int(x0 - reach_x)), max(0, int(y0 - reach_y))
    right, bottom = min(width, int(x1 + 1 + reach_x)), min(height, int(y1 + 1 + reach_y))
    window = np.ascontiguousarray(image[top:bottom, left:right, ::-1])
    state = np.zeros(window.shape[:2], np.uint8)
    rectangle = (max(x0 - left - 1, 0), max(y0 - top - 1, 0), box_w + 2, box_h + 2)
    cv2.setRNGSeed(0)
    cv2.grabCut(
        window,
        state,
        rectangle,
        np.zeros((1, 65)),
        np.zeros((1, 65)),
        _GRABCUT_ITERATIONS,
        cv2.GC_INIT_WITH_RECT,
    )
    mask = np.zeros((height, width), bool)
    mask[top:bottom, left:right] = (state == cv2.GC_FGD) | (state == cv2.GC_PR_FGD)
    return mask


def score_baselines(scene: ScoredScene) -> dict[str, list[float]]:
    """IoU of each object by each method, flood fill once per tolerance."""
    scores: dict[str, list[float]] = {}
    rows = zip(scene.masks, scene.centre_clicks, scene.boxes, strict=True)
    for truth, centre, box in rows:
        click = (int(centre[0]), int(centre[1]))
        masks = {
            f"flood fill ±{tolerance}": flood_fill(scene.image, click, tolerance)
            for tolerance in FLOOD_TOLERANCES
        }
        masks["Otsu component"] = otsu_component(scene.image, click)
        masks["box rectangle"] = box_rectangle(scene.image, box)
        masks["grabCut from the box"] = grab_cut(scene.image, box)
        masks["grabCut in a window"] = grab_cut(scene.image, box, around=0.5)
        for name, mask in masks.items():
            scores.setdefault(name, []).append(mask_iou(mask, truth))
    return scores
