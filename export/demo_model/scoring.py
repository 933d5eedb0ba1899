"""How good a predictor's masks are: held-out scenes, the prompts, and IoU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.demo_model.fields import ByteImage
from export.demo_model.predictors import Floats, PredictionLike, Predictor
from export.demo_model.prompts import (
    FOREGROUND,
    Mask,
    bounding_box,
    centre_click,
    correction_click,
    inside_click,
)
from export.demo_model.scenes import HELDOUT_STREAM, seeded_scene

HELDOUT_SIZE = 512
LEAST_SCORED_AREA = 0.003  # share of the image
_PICK_STREAM = 4


@dataclass(frozen=True)
class ScoredScene:
    """An image and the objects to ask for, with the clicks that every method gets."""

    image: ByteImage  # [H, W, 3]
    masks: NDArray[np.bool_]  # [B, H, W]
    centre_clicks: Floats  # [B, 2]
    random_clicks: Floats  # [B, 2]
    boxes: Floats  # [B, 4]


def scored_scene(image: ByteImage, masks: Sequence[Mask], rng: np.random.Generator) -> ScoredScene:
    return ScoredScene(
        image=image,
        masks=np.stack(masks),
        centre_clicks=np.array([centre_click(mask) for mask in masks], np.float32),
        random_clicks=np.array([inside_click(rng, mask) for mask in masks], np.float32),
        boxes=np.array([bounding_box(mask) for mask in masks], np.float32),
    )


def heldout_scenes(
    count: int, seed: int = 0, objects: int = 6, size: int = HELDOUT_SIZE
) -> Iterator[ScoredScene]:
    """The first `count` scenes of the held-out stream, up to `objects` of each, by lot."""
    for index in range(count):
        image, labels = seeded_scene(HELDOUT_STREAM, seed, index, size)
        rng = np.random.default_rng([_PICK_STREAM, seed, index])
        areas = np.bincount(labels.ravel())
        large = np.flatnonzero(areas >= LEAST_SCORED_AREA * labels.size)
        chosen = rng.permutation(large[large > 0])[:objects]
        if len(chosen):
            yield scored_scene(image, [labels == label for label in chosen], rng)


def mask_iou(predicted: NDArray[np.generic], truth: NDArray[np.generic]) -> float:
    """Intersection over union of two masks of one shape; two empty masks agree."""
    if predicted.shape != truth.shape:
        raise ValueError(f"predicted: expected shape {truth.shape}, got {predicted.shape}")
    first, second = predicted.astype(bool), truth.astype(bool)
    union = int((first | second).sum())
    return int((first & second).sum()) / union if union else 1.0


def _top(prediction: PredictionLike) -> tuple[NDArray[np.uint8], Floats]:
    """Per object the mask with the highest predicted IoU: [B, H, W] and its plane [B, 1, s, s]."""
    best = prediction.iou_predictions.argmax(1)
    rows = np.arange(len(best))
    return prediction.masks[rows, best], prediction.low_res_masks[rows, best][:, None]


def _ious(predicted: NDArray[np.generic], truth: NDArray[np.generic]) -> list[float]:
    return [mask_iou(one, other) for one, other in zip(predicted, truth, strict=True)]


def score_scene(predictor: Predictor, scene: ScoredScene) -> dict[str, list[float]]:
    """IoU of each object by each kind of prompt."""
    predictor.set_image(scene.image)
    foreground = np.full((len(scene.masks), 1), FOREGROUND, np.int32)
    centre = scene.centre_clicks[:, None]
    by_click, planes = _top(predictor.predict(centre, foreground, multimask_output=True))
    by_random, _ = _top(
        predictor.predict(scene.random_clicks[:, None], foreground, multimask_output=True)
    )
    by_box = predictor.predict(box=scene.boxes).masks[:, 0]
    corrections = [
        correction_click(mask.astype(bool), truth)
        for mask, truth in zip(by_click, scene.masks, strict=True)
    ]
    second = np.array([[x, y] for x, y, _ in corrections], np.float32)[:, None]
    second_label = np.array([[label] for _, _, label in corrections], np.int32)
    corrected = predictor.predict(
        np.concatenate([centre, second], 1),
        np.concatenate([foreground, second_label], 1),
        mask_input=planes,
    ).masks[:, 0]
    return {
        "centre click": _ious(by_click, scene.masks),
        "random click": _ious(by_random, scene.masks),
        "box": _ious(by_box, scene.masks),
        "corrected": _ious(corrected, scene.masks),
    }


def mean_scores(predictor: Predictor, scenes: Sequence[ScoredScene]) -> dict[str, float]:
    """Mean IoU over all objects of all scenes, by kind of prompt."""
    totals: dict[str, list[float]] = {}
    for scene in scenes:
        for name, values in score_scene(predictor, scene).items():
            totals.setdefault(name, []).extend(values)
    return {name: float(np.mean(values)) for name, values in totals.items()}
