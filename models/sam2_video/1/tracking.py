"""Prompts and tracking with the answers of Meta's `SAM2VideoPredictor`, over the video graphs.

Source of the semantics: `sam2/sam2_video_predictor.py` and `sam2/modeling/sam2_base.py` of the SAM 2
repository. Objects are independent of one another; those on one frame are computed together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from hole_filling import fill_holes
from memory_bank import FrameOutput, ObjectMemory, PointPrompt, to_float16_logits
from memory_selection import NO_LIMIT
from remembered import Remembered, recall, to_tensors
from video_graphs import DecodedObjects, FrameFeatures, VideoGraphs, no_prompt, point_prompt

FloatArray = npt.NDArray[np.float32]

# Earlier logits are handed to the decoder within these bounds.
EARLIER_LOGIT_LIMIT = 32.0
# The score that Meta gives a mask prompt that shows something (an empty one: less than 0 by as much).
MASK_PROMPT_SCORE = 10.0
MASK_PROMPT_IOU = 1.0


class NothingToTrackError(ValueError):
    """There is no object, or one without any prompt."""


@dataclass(frozen=True)
class TrackingOptions:
    """What a session was started with: names and meaning of Meta's predictor, whose default of
    add_all_frames_to_correct_as_cond is false (corrections then get lost)."""

    num_frames: int | None = None
    add_all_frames_to_correct_as_cond: bool = True
    non_overlap_masks: bool = False
    max_cond_frames_in_attn: int = NO_LIMIT
    fill_hole_area: int = 8


class Tracker:
    """The steps of one session. They change the object memories handed in, and say whether everything that
    Meta's predictor would have used was still there."""

    def __init__(
        self, graphs: VideoGraphs, options: TrackingOptions, max_objects_per_call: int
    ) -> None:
        self._graphs = graphs
        self._options = options
        self._max_objects_per_call = max_objects_per_call

    async def prompt_points(
        self, memory: ObjectMemory, frame_index: int, prompt: PointPrompt, features: FrameFeatures
    ) -> bool:
        """Clicks and box corners on a frame: all that count there, earlier ones included."""
        memory.points[frame_index] = prompt
        memory.mask_frames.discard(frame_index)
        store = self._store_for(memory, frame_index)
        earlier = store.get(frame_index) or memory.find_consolidated(frame_index)
        earlier_logits = None if earlier is None else earlier.low_res_logits
        complete = frame_index not in memory.forgotten and (
            earlier is None or earlier_logits is not None
        )
        image_embed = features.image_embed
        is_first = _is_first(memory, frame_index)
        if not is_first:
            remembered = self._recall(memory, frame_index, bool(memory.was_reverse(frame_index)))
            complete &= remembered.is_complete
            image_embed = await self._attend([remembered], features)
        decoded = await self._graphs.decode(
            features,
            image_embed,
            point_prompt(prompt, add_no_memory=is_first),
            None if earlier_logits is None else _as_mask_input(earlier_logits),
        )
        store[frame_index] = self._to_output(decoded, 0)
        return complete

    async def prompt_mask(
        self,
        memory: ObjectMemory,
        frame_index: int,
        mask: npt.NDArray[np.uint8],
        features: FrameFeatures,
    ) -> None:
        """A mask uint8 [S, S] of 0 and 1, which becomes the object's output on a frame."""
        memory.mask_frames.add(frame_index)
        memory.points.pop(frame_index, None)
        is_present = bool(mask.any())
        dense, logits = await self._graphs.prepare_mask_prompt(mask[None, None], features)
        # For the pointer alone; features as encoded, with neither memory nor its absence.
        decoded = await self._graphs.decode(
            features,
            features.image_embed,
            replace(no_prompt(1), best_of_three=False, object_present=is_present),
            dense,
        )
        score = MASK_PROMPT_SCORE if is_present else -MASK_PROMPT_SCORE
        output = replace(
            decoded,
            low_res_masks=logits,
            object_score_logits=np.array([[score]], np.float32),
            iou_predictions=np.array([[MASK_PROMPT_IOU]], np.float32),
        )
        self._store_for(memory, frame_index)[frame_index] = self._to_output(output, 0)

    async def encode_pending(
        self, memories: Sequence[ObjectMemory], frame_index: int, features: FrameFeatures
    ) -> None:
        """Encodes the memories of all prompts on a frame that have none yet."""
        pending = [
            (store, store[frame_index])
            for memory in memories
            for store in (memory.new_cond, memory.new_non_cond)
            if frame_index in store and store[frame_index].maskmem_features is None
        ]
        for start in range(0, len(pending), self._max_objects_per_call):
            part = pending[start : start + self._max_objects_per_call]
            encoded = await self._graphs.encode_memory(
                features,
                np.stack([_logits(output) for _, output in part])[:, None],
                np.array([[output.object_score_logit] for _, output in part], np.float32),
                binarize=True,
            )
            for (store, output), maskmem_features in zip(part, encoded, strict=True):
                store[frame_index] = replace(output, maskmem_features=maskmem_features.copy())

    def begin_tracking(self, memories: Mapping[int, ObjectMemory]) -> None:
        """Meta's preflight: outputs of prompts, their memories encoded by now, become what is tracked by.

        Raises:
            NothingToTrackError: naming the object.
        """
        if not memories:
            raise NothingToTrackError(
                "object_id: track needs a prompt before it, got no object yet"
            )
        for object_id, memory in memories.items():
            memory.consolidate()
            if not memory.cond:
                raise NothingToTrackError(
                    f"object_id: track needs a prompt for every object, object {object_id} has none left;"
                    " prompt it or remove it"
                )

    async def track(
        self,
        memories: Mapping[int, ObjectMemory],
        frame_index: int,
        reverse: bool,
        features: FrameFeatures,
    ) -> bool:
        """Computes all objects on one frame; those that were prompted there keep that output."""
        recalled = [
            (self._recall(memory, frame_index, reverse), memory)
            for memory in memories.values()
            if frame_index not in memory.cond
        ]
        # Those of one shape stand together, so that as many as can share a call of attention do.
        recalled.sort(key=lambda pair: pair[0].shape)
        for start in range(0, len(recalled), self._max_objects_per_call):
            part = recalled[start : start + self._max_objects_per_call]
            conditioned = await self._attend([remembered for remembered, _ in part], features)
            decoded = await self._graphs.decode(features, conditioned, no_prompt(len(part)), None)
            # The memory is of the mask as decoded, holes and all.
            encoded = await self._graphs.encode_memory(
                features, decoded.low_res_masks, decoded.object_score_logits, binarize=False
            )
            for row, (_, memory) in enumerate(part):
                memory.put_non_cond(frame_index, self._to_output(decoded, row, encoded[row]))
        for memory in memories.values():
            memory.mark_tracked(frame_index, reverse)
        return all(remembered.is_complete for remembered, _ in recalled)

    async def _attend(
        self, remembered: Sequence[Remembered], features: FrameFeatures
    ) -> npt.NDArray[np.float16]:
        """Conditioned features [B, C, h, w] in the order given; neighbours of one shape in one call."""
        parts: list[npt.NDArray[np.float16]] = []
        start = 0
        while start < len(remembered):
            stop = start + 1
            while stop < len(remembered) and remembered[stop].shape == remembered[start].shape:
                stop += 1
            part = remembered[start:stop]
            fingerprints = {mark for one in part for mark in one.fingerprints}
            tensors = to_tensors(part, features.channels)
            parts.append(await self._graphs.attend(features, tensors, fingerprints))
            start = stop
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _recall(self, memory: ObjectMemory, frame_index: int, reverse: bool) -> Remembered:
        options = self._options
        return recall(
            memory, frame_index, reverse, options.num_frames, options.max_cond_frames_in_attn
        )

    def _store_for(self, memory: ObjectMemory, frame_index: int) -> dict[int, FrameOutput]:
        as_cond = self._options.add_all_frames_to_correct_as_cond
        if as_cond or _is_first(memory, frame_index):
            return memory.new_cond
        return memory.new_non_cond

    def _to_output(
        self,
        decoded: DecodedObjects,
        row: int,
        maskmem_features: npt.NDArray[np.float16] | None = None,
    ) -> FrameOutput:
        logits = fill_holes(decoded.low_res_masks[row, 0], self._options.fill_hole_area)
        # Copies, so that no output keeps a whole batch alive.
        return FrameOutput(
            low_res_logits=to_float16_logits(logits),
            maskmem_features=None if maskmem_features is None else maskmem_features.copy(),
            obj_ptr=decoded.obj_ptr[row].copy(),
            object_score_logit=float(decoded.object_score_logits[row, 0]),
            iou_prediction=float(decoded.iou_predictions[row, 0]),
            memory_fingerprint=decoded.memory_fingerprint,
        )


def _is_first(memory: ObjectMemory, frame_index: int) -> bool:
    """Whether a prompt on the frame is decoded without memory: it was never tracked, or nothing
    conditions it any more (where Meta's predictor fails)."""
    return memory.was_reverse(frame_index) is None or not memory.cond


def _as_mask_input(logits: npt.NDArray[np.float16]) -> FloatArray:
    clamped = np.clip(logits.astype(np.float32), -EARLIER_LOGIT_LIMIT, EARLIER_LOGIT_LIMIT)
    return clamped[None, None]


def _logits(output: FrameOutput) -> FloatArray:
    if output.low_res_logits is None:
        raise ValueError("a prompt's output without its mask has no memory to encode")
    return output.low_res_logits.astype(np.float32)
