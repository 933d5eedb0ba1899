"""What a session remembers of one object: its prompts, and what its frames left behind.

Pure bookkeeping: no Triton, no clock, no graphs. Outputs never change once made; a step works on a copy of
the object's stores, which takes their place when the step has succeeded.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from frame_ranges import FrameRanges

# What stands in masks where the object is not in the frame.
NO_OBJECT_LOGIT = -1024.0
LARGEST_FLOAT16 = 65504.0
# What a range of frames takes in Python's own lists, roughly.
RANGE_BYTES = 128


@dataclass(frozen=True)
class PointPrompt:
    """Clicks and box corners of one object on one frame: float32 [N, 2] in the unit square, int32 [N]."""

    unit_coords: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int32]

    def followed_by(self, later: PointPrompt) -> PointPrompt:
        return PointPrompt(
            np.concatenate([self.unit_coords, later.unit_coords]),
            np.concatenate([self.labels, later.labels]),
        )


@dataclass(frozen=True)
class FrameOutput:
    """What one object left on one frame.

    low_res_logits float16 [s, s], holes filled; None where it was evicted. maskmem_features float16
    [D, S/16, S/16]; None where it is not encoded yet, or was evicted. obj_ptr float32 [C]. The fingerprint is
    that of the weights which made pointer and memory.
    """

    low_res_logits: npt.NDArray[np.float16] | None
    maskmem_features: npt.NDArray[np.float16] | None
    obj_ptr: npt.NDArray[np.float32]
    object_score_logit: float
    iou_prediction: float
    memory_fingerprint: int

    @property
    def size_bytes(self) -> int:
        arrays = (self.low_res_logits, self.maskmem_features, self.obj_ptr)
        return sum(array.nbytes for array in arrays if array is not None)

    def pointer_alone(self) -> FrameOutput:
        return dataclasses.replace(self, low_res_logits=None, maskmem_features=None)


def to_float16_logits(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    """Logits as they are kept: half the bytes; what is too large for it is as certain at its limit."""
    return np.clip(logits, -LARGEST_FLOAT16, LARGEST_FLOAT16).astype(np.float16)


@dataclass
class ObjectMemory:
    """One object's stores, in the terms of Meta's predictor.

    cond: outputs that condition all other frames (of prompted frames). non_cond: those of other frames, the
    longest unchanged first. new_cond, new_non_cond: those of prompts since the last tracking, which it has
    yet to take over. pointers: outputs of non_cond whose memory and mask were evicted. forgotten: frames of
    which not even that is left.
    """

    points: dict[int, PointPrompt] = field(default_factory=dict)
    mask_frames: set[int] = field(default_factory=set)
    cond: dict[int, FrameOutput] = field(default_factory=dict)
    non_cond: dict[int, FrameOutput] = field(default_factory=dict)
    new_cond: dict[int, FrameOutput] = field(default_factory=dict)
    new_non_cond: dict[int, FrameOutput] = field(default_factory=dict)
    pointers: dict[int, FrameOutput] = field(default_factory=dict)
    forgotten: FrameRanges = field(default_factory=FrameRanges)
    tracked_forward: FrameRanges = field(default_factory=FrameRanges)
    tracked_backward: FrameRanges = field(default_factory=FrameRanges)

    def copy(self) -> ObjectMemory:
        """Own stores with the same outputs in them."""
        return ObjectMemory(**{name: store.copy() for name, store in vars(self).items()})

    @property
    def prompted_frames(self) -> set[int]:
        """Frames whose outputs condition others, now or after the next tracking."""
        return self.cond.keys() | self.new_cond.keys() | self.new_non_cond.keys()

    @property
    def pending_frames(self) -> set[int]:
        """Frames with a prompt whose memory is not encoded yet."""
        news = [*self.new_cond.items(), *self.new_non_cond.items()]
        return {frame for frame, output in news if output.maskmem_features is None}

    @property
    def size_bytes(self) -> int:
        """Of outputs, prompts and ranges; outputs of one long store are of one size."""
        small = (self.cond, self.new_cond, self.new_non_cond)
        total = sum(output.size_bytes for store in small for output in store.values())
        for store in (self.non_cond, self.pointers):
            if store:
                total += len(store) * next(iter(store.values())).size_bytes
        total += sum(p.unit_coords.nbytes + p.labels.nbytes for p in self.points.values())
        ranges = (self.forgotten, self.tracked_forward, self.tracked_backward)
        return total + RANGE_BYTES * sum(frames.count for frames in ranges)

    def was_reverse(self, frame: int) -> bool | None:
        """Whether the frame was tracked backward; None where it was not tracked."""
        if frame in self.tracked_backward:
            return True
        return False if frame in self.tracked_forward else None

    def mark_tracked(self, frame: int, reverse: bool) -> None:
        self.unmark_tracked(frame)
        (self.tracked_backward if reverse else self.tracked_forward).add(frame)

    def unmark_tracked(self, frame: int) -> None:
        self.tracked_backward.discard(frame)
        self.tracked_forward.discard(frame)

    def find_consolidated(self, frame: int) -> FrameOutput | None:
        """The output of a frame that tracking has taken over, evicted parts missing."""
        return self.cond.get(frame) or self.find_non_cond(frame)

    def find_non_cond(self, frame: int) -> FrameOutput | None:
        return self.non_cond.get(frame) or self.pointers.get(frame)

    def put_non_cond(self, frame: int, output: FrameOutput) -> None:
        """Takes an output in as the latest one."""
        self.drop_non_cond(frame)
        self.non_cond[frame] = output

    def drop_non_cond(self, frame: int) -> None:
        self.non_cond.pop(frame, None)
        self.pointers.pop(frame, None)
        self.forgotten.discard(frame)

    def consolidate(self) -> None:
        """Has the stores take over the outputs of prompts, all of whose memories are encoded."""
        for frame, output in self.new_non_cond.items():
            self.put_non_cond(frame, output)
        self.cond.update(self.new_cond)
        self.new_non_cond.clear()
        self.new_cond.clear()
        for frame in self.cond:
            self.drop_non_cond(frame)

    def clear_prompts(self, frame: int) -> None:
        """Forgets the prompts on a frame; its output no longer conditions others."""
        self.points.pop(frame, None)
        self.mask_frames.discard(frame)
        self.new_cond.pop(frame, None)
        self.new_non_cond.pop(frame, None)
        output = self.cond.pop(frame, None)
        if output is not None:
            self.put_non_cond(frame, output)
            self.unmark_tracked(frame)

    def evict(self, memory_frames: int, pointer_frames: int) -> int:
        """Drops what exceeds these numbers of frames, oldest first; returns how many memories went."""
        evicted = max(len(self.non_cond) - memory_frames, 0)
        for _ in range(evicted):
            frame = next(iter(self.non_cond))
            self.pointers[frame] = self.non_cond.pop(frame).pointer_alone()
        while len(self.pointers) > pointer_frames:
            frame = next(iter(self.pointers))
            del self.pointers[frame]
            self.forgotten.add(frame)
        return evicted
