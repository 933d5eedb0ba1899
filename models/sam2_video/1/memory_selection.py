"""Which of an object's earlier outputs one frame's attention looks at.

Source of the rules: `SAM2Base._prepare_memory_conditioned_features` and `select_closest_cond_frames` of the
SAM 2 repository, with SAM 2.1's settings. Frame numbers alone go in and come out; another policy of
remembering replaces this module and nothing else.
"""

from __future__ import annotations

from collections.abc import Collection, Container
from dataclasses import dataclass

# Memories that attention looks back to, one of them for the prompted frames.
MASK_MEMORIES = 7
# Row of the temporal encoding that all prompted frames share.
CONDITIONING_ROW = MASK_MEMORIES - 1
# Object pointers that attention looks at, where the video is that long.
OBJECT_POINTERS = 16
NO_LIMIT = -1


@dataclass(frozen=True)
class Selection:
    """memories: (row of the temporal encoding, frame); pointers: (distance in frames, frame).

    The distance is positive for frames that were tracked before this one, and is to be divided by
    `pointer_span` where the graph takes it.
    """

    memories: tuple[tuple[int, int], ...]
    pointers: tuple[tuple[int, int], ...]
    pointer_span: int

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of memories and pointers: objects that share them can go in one call."""
        return len(self.memories), len(self.pointers)


def select_memories(
    cond_frames: Collection[int],
    non_cond_frames: Container[int],
    frame_index: int,
    reverse: bool,
    num_frames: int | None,
    *,
    max_cond_frames: int = NO_LIMIT,
) -> Selection:
    """Chooses the memories and pointers for one object on one frame.

    Args:
        cond_frames: frames whose output conditions all others (prompted ones), in order of creation.
        non_cond_frames: frames with any other output; none of them is in cond_frames.
        frame_index: the frame to be computed; it may be among cond_frames.
        reverse: whether it is tracked towards frame 0.
        num_frames: of the video; None for a live stream.
        max_cond_frames: at most so many of cond_frames (2 or more); NO_LIMIT for all.
    """
    selected = closest_cond_frames(cond_frames, frame_index, max_cond_frames)
    unselected = set(cond_frames) - set(selected)
    back = 1 if reverse else -1

    def is_remembered(frame: int) -> bool:
        return frame in non_cond_frames or frame in unselected

    memories = [(CONDITIONING_ROW, frame) for frame in selected]
    for distance in range(MASK_MEMORIES - 1, 0, -1):
        frame = frame_index + back * distance
        if is_remembered(frame):
            memories.append((distance - 1, frame))

    most_pointers = OBJECT_POINTERS if num_frames is None else min(OBJECT_POINTERS, num_frames)
    # A prompted frame that lies ahead lends its memory, but not its pointer.
    pointers = [
        ((frame - frame_index) * back, frame)
        for frame in selected
        if (frame - frame_index) * back >= 0
    ]
    for distance in range(1, most_pointers):
        frame = frame_index + back * distance
        if frame < 0 or (num_frames is not None and frame >= num_frames):
            break
        if is_remembered(frame):
            pointers.append((distance, frame))
    # A video of one frame has no distance but 0.
    return Selection(tuple(memories), tuple(pointers), max(most_pointers - 1, 1))


def closest_cond_frames(
    cond_frames: Collection[int], frame_index: int, max_cond_frames: int
) -> tuple[int, ...]:
    """The nearest frame before, the nearest at or after, then others by distance, up to the limit."""
    if max_cond_frames == NO_LIMIT or len(cond_frames) <= max_cond_frames:
        return tuple(cond_frames)
    before = [frame for frame in cond_frames if frame < frame_index]
    from_here = [frame for frame in cond_frames if frame >= frame_index]
    chosen = ([max(before)] if before else []) + ([min(from_here)] if from_here else [])
    others = sorted(
        (frame for frame in cond_frames if frame not in chosen),
        key=lambda frame: abs(frame - frame_index),
    )
    return tuple(chosen + others[: max_cond_frames - len(chosen)])
