"""An object's selected memories and pointers as the tensors of `sam2_memory_attention`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from memory_bank import FrameOutput, ObjectMemory
from memory_selection import Selection, select_memories


@dataclass(frozen=True)
class Remembered:
    """What attention gets of one object: memories with their row, pointers with their offset.

    `is_complete` is false where Meta's predictor would have had more, evicted here.
    """

    memories: tuple[tuple[int, FrameOutput], ...]
    pointers: tuple[tuple[float, FrameOutput], ...]
    is_complete: bool

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of memories and pointers: objects that share them go in one call."""
        return len(self.memories), len(self.pointers)

    @property
    def fingerprints(self) -> set[int]:
        return {output.memory_fingerprint for _, output in self.memories + self.pointers}


class _NonCondFrames:
    """Frames with a non-conditioning output, evicted ones among them."""

    def __init__(self, memory: ObjectMemory) -> None:
        self._memory = memory

    def __contains__(self, frame: object) -> bool:
        if not isinstance(frame, int):
            return False
        memory = self._memory
        evicted = frame in memory.pointers or frame in memory.forgotten
        return frame in memory.non_cond or evicted


def recall(
    memory: ObjectMemory,
    frame_index: int,
    reverse: bool,
    num_frames: int | None,
    max_cond_frames: int,
) -> Remembered:
    """What is remembered of an object for one frame."""
    selection: Selection = select_memories(
        memory.cond,
        _NonCondFrames(memory),
        frame_index,
        reverse,
        num_frames,
        max_cond_frames=max_cond_frames,
    )
    wanted_memories = [(row, memory.find_consolidated(f)) for row, f in selection.memories]
    wanted_pointers = [
        (distance / selection.pointer_span, memory.find_consolidated(f))
        for distance, f in selection.pointers
    ]
    memories = tuple(
        (row, output)
        for row, output in wanted_memories
        if output is not None and output.maskmem_features is not None
    )
    pointers = tuple((offset, output) for offset, output in wanted_pointers if output is not None)
    complete = len(memories) == len(wanted_memories) and len(pointers) == len(wanted_pointers)
    return Remembered(memories, pointers, complete)


def to_tensors(remembered: Sequence[Remembered], channels: int) -> dict[str, npt.NDArray[Any]]:
    """Tensors of B objects that share a shape (M, P): maskmem_features float16 [B, M, D, h, w], maskmem_tpos
    int64 [B, M], obj_ptrs float32 [B, P, C], obj_ptr_offsets float32 [B, P]."""
    objects = len(remembered)
    memory_count, pointer_count = remembered[0].shape
    obj_ptrs = np.empty((objects, pointer_count, channels), np.float32)
    for row, one in enumerate(remembered):
        for column, (_, output) in enumerate(one.pointers):
            obj_ptrs[row, column] = output.obj_ptr
    offsets = [offset for one in remembered for offset, _ in one.pointers]
    features = [o.maskmem_features for one in remembered for _, o in one.memories]
    stacked = np.stack([array for array in features if array is not None])
    return {
        "maskmem_features": stacked.reshape(objects, memory_count, *stacked.shape[1:]),
        "maskmem_tpos": np.array(
            [[row for row, _ in one.memories] for one in remembered], np.int64
        ),
        "obj_ptrs": obj_ptrs,
        "obj_ptr_offsets": np.array(offsets, np.float32).reshape(objects, pointer_count),
    }
