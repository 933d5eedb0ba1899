"""Low-resolution logits of one frame's objects to an answer's masks."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from mask_encoding import EncodingCancelledError, OutputLimits, encode_masks
from mask_planes import FullSizePlane
from memory_bank import NO_OBJECT_LOGIT, FrameOutput
from session_state import SessionState
from tracking import TrackingOptions
from video_errors import CancelledStepError

FloatArray = npt.NDArray[np.float32]
Tensors = dict[str, npt.NDArray[Any]]

# Where another object is more certain of a pixel, this one's logit is at most this.
SUPPRESSED_LOGIT = -10.0
MASK_TENSORS = ("masks", "mask_logits", "masks_rle", "masks_png")


def stack_outputs(outputs: list[FrameOutput | None], low_res_side: int) -> Tensors:
    """low_res_masks float32 [B, 1, s, s], object_score_logits and iou_predictions [B] of B objects."""
    low_res = np.full((len(outputs), 1, low_res_side, low_res_side), NO_OBJECT_LOGIT, np.float32)
    scores = np.full(len(outputs), NO_OBJECT_LOGIT, np.float32)
    ious = np.zeros(len(outputs), np.float32)
    for row, output in enumerate(outputs):
        if output is None:
            continue
        scores[row], ious[row] = output.object_score_logit, output.iou_prediction
        if output.low_res_logits is not None:
            low_res[row, 0] = output.low_res_logits
    return {"low_res_masks": low_res, "object_score_logits": scores, "iou_predictions": ious}


def encode_frame_masks(
    low_res_masks: FloatArray,
    original_hw: tuple[int, int],
    formats: frozenset[str],
    *,
    non_overlap: bool,
    limits: OutputLimits,
    is_cancelled: Callable[[], bool],
) -> Tensors:
    """The four mask tensors, B first; a format that was not asked for has 0 elements.

    Raises:
        InvalidOutputError: the answer would exceed a limit.
        CancelledStepError: nobody wants it any more.
    """

    # Found out when the first plane is wanted: what is too large has been refused by then.
    winners = cache(lambda: _winners(low_res_masks[:, 0], original_hw, is_cancelled))

    def contested_plane(index: tuple[int, ...]) -> FullSizePlane:
        return _ContestedPlane(low_res_masks[index], original_hw, winners() == index[0])

    is_contested = non_overlap and len(low_res_masks) > 1
    try:
        encoded = encode_masks(
            low_res_masks,
            original_hw,
            formats,
            limits,
            is_cancelled,
            plane_of=contested_plane if is_contested else None,
        )
    except EncodingCancelledError as error:
        raise CancelledStepError("the client cancelled this request") from error
    tensors = vars(encoded)
    objects = len(low_res_masks)
    # One mask for each object: M goes.
    return {
        name: tensors[name].reshape(objects, *tensors[name].shape[2:])
        if tensors[name].size
        else np.empty((0,) * (tensors[name].ndim - 1), tensors[name].dtype)
        for name in MASK_TENSORS
    }


def describe(state: SessionState, options: TrackingOptions) -> bytes:
    """A session's contents as JSON: options, video, frames held, and each object's prompted and tracked
    frames."""
    objects = {
        str(object_id): {
            "prompted_frames": sorted(memory.points.keys() | memory.mask_frames),
            "conditioning_frames": sorted(memory.cond.keys() | memory.new_cond.keys()),
            "pending_frames": sorted(memory.new_cond.keys() | memory.new_non_cond.keys()),
            "tracked_forward": list(memory.tracked_forward),
            "tracked_backward": list(memory.tracked_backward),
            "memories": len(memory.cond) + len(memory.non_cond),
            "pointers": len(memory.pointers),
            "bytes": memory.size_bytes,
        }
        for object_id, memory in state.objects.items()
    }
    return json.dumps(
        {
            "options": vars(options),
            "video": None if state.video is None else state.video.facts,
            "objects": objects,
            "frames_held": sorted(state.files.keys() | state.features.keys()),
            "bytes": {
                "memories": state.memory_bytes,
                "features": state.features_bytes,
                "files": state.files_bytes,
                "video": state.video_bytes,
            },
        }
    ).encode()


class _ContestedPlane(FullSizePlane):
    """One object's plane, suppressed where it does not win."""

    def __init__(
        self, low_res: FloatArray, original_hw: tuple[int, int], wins: npt.NDArray[np.bool_]
    ) -> None:
        super().__init__(low_res, original_hw)
        self._wins = wins

    def logits(self, start: int, stop: int) -> FloatArray:
        own = super().logits(start, stop)
        suppressed = np.minimum(own, np.float32(SUPPRESSED_LOGIT))
        return np.where(self._wins[:, start:stop], own, suppressed)


def _winners(
    low_res: FloatArray, original_hw: tuple[int, int], is_cancelled: Callable[[], bool]
) -> npt.NDArray[np.int16]:
    """Which object has the largest logit, [H, W]; of equal ones the first."""
    planes = [FullSizePlane(plane, original_hw) for plane in low_res]
    winners = np.zeros(original_hw, np.int16)
    for start, stop in planes[0].blocks(positive_only=False):
        best = planes[0].logits(start, stop)
        for number, plane in enumerate(planes[1:], 1):
            if is_cancelled():
                raise EncodingCancelledError("cancelled between two blocks")
            logits = plane.logits(start, stop)
            winners[:, start:stop][logits > best] = number
            best = np.maximum(best, logits)
    return winners
