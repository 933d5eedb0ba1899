"""Which candidates stay: within a crop, among crops, and at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from candidates import Candidate, is_wanted_area, mask_of, with_mask
from generator_parameters import GeneratorParameters, InvalidParameterError
from region_filter import mend_regions
from suppression import suppress_boxes, suppress_masks

FloatArray = npt.NDArray[np.float32]
IndexArray = npt.NDArray[np.intp]


@dataclass(frozen=True)
class MaskSelection:
    """The choice by a request's parameters; `check` raises where the work is to be given up."""

    original_hw: tuple[int, int]
    parameters: GeneratorParameters
    check: Callable[[], None]

    def within_crop(self, found: list[Candidate]) -> list[Candidate]:
        """The masks of one crop that stay beside each other, highest predicted IoU first."""
        kept = self._kept(found, _ious(found), self.parameters.box_nms_thresh)
        return [found[index] for index in kept]

    def among_crops(self, found: list[Candidate]) -> list[Candidate]:
        """The masks of all crops that stay beside each other; those of smaller crops win and come first."""
        areas = np.array([_crop_area(each) for each in found], np.float32)
        kept = self._kept(found, np.float32(1) / areas, self.parameters.crop_nms_thresh)
        return [found[index] for index in kept]

    def finished(self, found: list[Candidate], max_masks: int) -> list[Candidate]:
        """What is ours and off by default: regions, containment, the number of masks. Keeps the order.

        Raises:
            InvalidParameterError: more than `max_masks` masks are left.
        """
        parameters = self.parameters
        if parameters.min_mask_region_area > 0:
            found = self._mended(found)
        if parameters.mask_containment_thresh is not None:
            contained = suppress_masks(
                [each.counts for each in found],
                self.original_hw,
                _ious(found),
                self.check,
                containment_threshold=parameters.mask_containment_thresh,
            )
            found = [found[index] for index in sorted(contained)]
        if parameters.max_masks is not None:
            best = np.argsort(-_ious(found), kind="stable")[: parameters.max_masks]
            found = [found[index] for index in sorted(best)]
        if len(found) > max_masks:
            raise InvalidParameterError(
                f"max_masks: expected at most {max_masks} masks (max_masks), got {len(found)}; ask for the"
                " best ones by max_masks, raise a threshold, or set min_mask_area"
            )
        return found

    def _mended(self, found: list[Candidate]) -> list[Candidate]:
        """Without holes and specks; as in SAM 1, what is alike now is suppressed, unchanged masks win."""
        mended: list[Candidate] = []
        scores: list[float] = []
        for each in found:
            self.check()
            mask, changed = mend_regions(
                mask_of(each, self.original_hw), self.parameters.min_mask_region_area
            )
            mended.append(with_mask(each, mask) if changed else each)
            scores.append(float(not changed))
        threshold = max(self.parameters.box_nms_thresh, self.parameters.crop_nms_thresh)
        kept = self._kept(mended, np.array(scores, np.float32), threshold)
        left = [mended[index] for index in sorted(kept)]
        return [each for each in left if is_wanted_area(each.area, self.parameters)]

    def _kept(self, found: list[Candidate], scores: FloatArray, box_threshold: float) -> IndexArray:
        mask_threshold = self.parameters.mask_nms_thresh
        if mask_threshold is not None:
            counts = [each.counts for each in found]
            return suppress_masks(
                counts, self.original_hw, scores, self.check, iou_threshold=mask_threshold
            )
        boxes = np.array([each.box_xyxy for each in found], np.float32).reshape(-1, 4)
        return suppress_boxes(boxes, scores, box_threshold, self.check)


def _ious(found: list[Candidate]) -> FloatArray:
    return np.array([each.predicted_iou for each in found], np.float32)


def _crop_area(candidate: Candidate) -> int:
    x0, y0, x1, y1 = candidate.crop_xyxy
    return (x1 - x0) * (y1 - y0)
