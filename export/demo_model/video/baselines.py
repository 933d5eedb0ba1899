"""What the memory has to beat, all from the image model's mask of the same click."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from export.demo_model.fields import ByteImage
from export.demo_model.predictors import PredictionLike, Predictor
from export.demo_model.prompts import FOREGROUND, Mask, bounding_box, centre_click
from export.demo_model.video.trackers import Tracked

Masks = NDArray[np.bool_]
FIRST_MASK, FLOW, CLICKED_AGAIN, CSRT = (
    "first mask kept",
    "moved by optical flow (DIS)",
    "image model clicked again",
    "CSRT + image model's box",
)


def follow_by_baselines(
    predictor: Predictor, pictures: ByteImage, clicks: NDArray[np.float32]
) -> dict[str, Tracked]:
    """Every baseline that can be run here; CSRT needs OpenCV's contributed modules."""
    predictor.set_image(pictures[0])
    first = masks_of_clicks(predictor, clicks)
    found = {
        FIRST_MASK: np.repeat(first[None], len(pictures), 0),
        FLOW: moved_by_flow(pictures, first),
        CLICKED_AGAIN: clicked_again(predictor, pictures, first),
    }
    if has_csrt():
        found[CSRT] = boxes_tracked(predictor, pictures, first)
    return {name: Tracked(masks, masks.any((2, 3))) for name, masks in found.items()}


def has_csrt() -> bool:
    return hasattr(cv2, "TrackerCSRT_create")


def _best(prediction: PredictionLike) -> Masks:
    best = prediction.iou_predictions.argmax(1)
    return np.asarray(prediction.masks[np.arange(len(best)), best].astype(bool))


def masks_of_clicks(predictor: Predictor, clicks: NDArray[np.float32]) -> Masks:
    """One click each, [K, 2], on the image that was set."""
    labels = np.full((len(clicks), 1), FOREGROUND, np.int32)
    return _best(predictor.predict(clicks[:, None], labels, multimask_output=True))


def moved_by_flow(pictures: ByteImage, first: Masks) -> Masks:
    """Each frame's masks are the last ones, warped by dense optical flow between the two pictures."""
    flow_of = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    greys = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in pictures]
    y, x = np.mgrid[: first.shape[1], : first.shape[2]].astype(np.float32)
    soft = first.astype(np.float32)
    found = [first]
    for earlier, later in pairwise(greys):
        flow = flow_of.calc(later, earlier, None)  # where each pixel was before
        soft = np.stack(
            [cv2.remap(mask, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR) for mask in soft]
        )
        found.append(soft > 0.5)
    return np.stack(found)


def clicked_again(predictor: Predictor, pictures: ByteImage, first: Masks) -> Masks:
    """On each frame a click at the centre of the last mask; what is lost stays lost."""
    found = [first]
    for picture in pictures[1:]:
        predictor.set_image(picture)
        masks = np.zeros_like(first)
        held = np.flatnonzero(found[-1].any((1, 2)))
        if len(held):
            clicks = np.array([centre_click(found[-1][k]) for k in held], np.float32)
            masks[held] = masks_of_clicks(predictor, clicks)
        found.append(masks)
    return np.stack(found)


def boxes_tracked(predictor: Predictor, pictures: ByteImage, first: Masks) -> Masks:
    """OpenCV's CSRT follows each first mask's box, and the image model segments what is in the box."""
    found = np.zeros((len(pictures), *first.shape), bool)
    found[0] = first
    trackers = {k: _csrt(pictures[0], mask) for k, mask in enumerate(first) if mask.sum() > 9}
    for frame, picture in enumerate(pictures[1:], start=1):
        predictor.set_image(picture)
        for k, tracker in trackers.items():
            held, (x, y, width, height) = tracker.update(picture[..., ::-1].copy())
            if held and width > 1 and height > 1:
                box = np.array([[x, y, x + width - 1, y + height - 1]], np.float32)
                found[frame, k] = predictor.predict(box=box).masks[0, 0].astype(bool)
    return found


def _csrt(picture: ByteImage, mask: Mask) -> cv2.Tracker:
    x0, y0, x1, y1 = (int(v) for v in bounding_box(mask))
    contributed: Any = cv2  # the stubs know the main modules alone
    tracker: cv2.Tracker = contributed.TrackerCSRT_create()
    tracker.init(picture[..., ::-1].copy(), (x0, y0, x1 - x0 + 1, y1 - y0 + 1))
    return tracker
