"""Which candidates stay: within a crop, among crops, and at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from candidates import Candidate, is_wanted_area, mask_of, with_mask
from generator_parameters import GeneratorParameters, InvalidParameterError
from region_filter import mend_regions
from suppression import suppress_boxes, suppress_masks

Check = Callable[[], None]
FloatArray = npt.NDArray[np.float32]


def within_crop(
    found: list[Candidate],
    original_hw: tuple[int, int],
    parameters: GeneratorParameters,
    check: Check,
) -> list[Candidate]:
    """The masks of one crop that stay beside each other, highest predicted IoU first."""
    return _suppressed(
        found, _ious(found), parameters.box_nms_thresh, original_hw, parameters, check
    )


def among_crops(
    found: list[Candidate],
    original_hw: tuple[int, int],
    parameters: GeneratorParameters,
    check: Check,
) -> list[Candidate]:
    """The masks of all crops that stay beside each other; those of smaller crops win and come first."""
    scores = np.array([np.float32(1) / np.float32(_crop_area(each)) for each in found], np.float32)
    return _suppressed(found, scores, parameters.crop_nms_thresh, original_hw, parameters, check)


def finished(
    found: list[Candidate],
    original_hw: tuple[int, int],
    parameters: GeneratorParameters,
    max_masks: int,
    check: Check,
) -> list[Candidate]:
    """What is ours and off by default: mended regions, containment, the number of masks. Keeps the order."""
    if parameters.min_mask_region_area > 0:
        found = _mended(found, original_hw, parameters, check)
    if parameters.mask_containment_thresh is not None:
        kept = suppress_masks(
            [each.counts for each in found],
            original_hw,
            _ious(found),
            None,
            parameters.mask_containment_thresh,
            check,
        )
        found = [found[index] for index in sorted(kept)]
    if parameters.max_masks is not None:
        best = np.argsort(-_ious(found), kind="stable")[: parameters.max_masks]
        found = [found[index] for index in sorted(best)]
    if len(found) > max_masks:
        raise InvalidParameterError(
            f"max_masks: expected at most {max_masks} masks (max_masks), got {len(found)}; ask for the best"
            " ones by max_masks, raise a threshold, or set min_mask_area"
        )
    return found


def _mended(
    found: list[Candidate],
    original_hw: tuple[int, int],
    parameters: GeneratorParameters,
    check: Check,
) -> list[Candidate]:
    """Without holes and specks; as in SAM 1, boxes that are alike now are suppressed, unchanged masks winning."""
    mended: list[Candidate] = []
    scores: list[float] = []
    for each in found:
        check()
        mask, changed = mend_regions(mask_of(each, original_hw), parameters.min_mask_region_area)
        mended.append(with_mask(each, mask) if changed else each)
        scores.append(float(not changed))
    threshold = max(parameters.box_nms_thresh, parameters.crop_nms_thresh)
    kept = _kept(mended, np.array(scores, np.float32), threshold, original_hw, parameters, check)
    return [
        mended[index] for index in sorted(kept) if is_wanted_area(mended[index].area, parameters)
    ]


def _suppressed(
    found: list[Candidate],
    scores: FloatArray,
    box_threshold: float,
    original_hw: tuple[int, int],
    parameters: GeneratorParameters,
    check: Check,
) -> list[Candidate]:
    kept = _kept(found, scores, box_threshold, original_hw, parameters, check)
    return [found[index] for index in kept]


def _kept(
    found: list[Candidate],
    scores: FloatArray,
    box_threshold: float,
    original_hw: tuple[int, int],
    parameters: GeneratorParameters,
    check: Check,
) -> Any:
    if parameters.mask_nms_thresh is not None:
        counts = [each.counts for each in found]
        return suppress_masks(counts, original_hw, scores, parameters.mask_nms_thresh, None, check)
    boxes = np.array([each.box_xyxy for each in found], np.float32).reshape(-1, 4)
    return suppress_boxes(boxes, scores, box_threshold, check)


def _ious(found: list[Candidate]) -> FloatArray:
    return np.array([each.predicted_iou for each in found], np.float32)


def _crop_area(candidate: Candidate) -> int:
    x0, y0, x1, y1 = candidate.crop_xyxy
    return (x1 - x0) * (y1 - y0)
