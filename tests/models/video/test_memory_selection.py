"""Which memories and pointers a frame looks at, against a table written by hand from Meta's rules."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from memory_selection import closest_cond_frames, select_memories

LIVE = None


@dataclass(frozen=True)
class Case:
    """cond and others: frames with outputs; memories as {row: frame}, all of cond in row 6; pointers as
    {frame: distance}."""

    name: str
    cond: tuple[int, ...]
    others: range | tuple[int, ...]
    frame: int
    conditioning: tuple[int, ...]
    recent: dict[int, int]
    pointers: dict[int, int]
    span: int
    reverse: bool = False
    num_frames: int | None = 40
    most: int = -1


CASES = [
    Case("the frame after the prompt", (0,), (), 1, (0,), {}, {0: 1}, 15),
    Case("the third frame", (0,), range(1, 3), 3, (0,), {1: 1, 0: 2}, {0: 3, 2: 1, 1: 2}, 15),
    Case(
        "far forward",
        (0,),
        range(1, 30),
        30,
        (0,),
        {5: 24, 4: 25, 3: 26, 2: 27, 1: 28, 0: 29},
        {0: 30, **{30 - d: d for d in range(1, 16)}},
        15,
    ),
    Case(
        "backward",
        (20,),
        range(12, 20),
        11,
        (20,),
        {5: 17, 4: 16, 3: 15, 2: 14, 1: 13, 0: 12},
        {20: 9, **{11 + d: d for d in range(1, 9)}},
        15,
        reverse=True,
    ),
    Case("frames are missing", (0,), (3, 5), 6, (0,), {2: 3, 0: 5}, {0: 6, 5: 1, 3: 3}, 15),
    Case("the prompt lies ahead", (9,), (), 4, (9,), {}, {}, 15),
    Case("the prompt lies behind, seen backward", (2,), (), 4, (2,), {}, {}, 15, reverse=True),
    Case(
        "prompts on both sides",
        (2, 9),
        (3,),
        4,
        (2, 9),
        {0: 3},
        {2: 2, 3: 1},
        15,
    ),
    Case("a prompt on the frame itself", (0, 4), (3,), 4, (0, 4), {0: 3}, {0: 4, 4: 0, 3: 1}, 15),
    Case(
        "two of four prompts, an unselected one in the window",
        (0, 6, 7, 20),
        (5,),
        8,
        (7, 20),
        {1: 6, 2: 5},
        {7: 1, 6: 2, 5: 3, 0: 8},
        15,
        most=2,
    ),
    Case(
        "three of four prompts",
        (0, 6, 7, 20),
        (),
        8,
        (7, 20, 6),
        {},
        {7: 1, 6: 2, 0: 8},
        15,
        most=3,
    ),
    Case(
        "outputs of the other direction count",
        (5,),
        (6, 7),
        8,
        (5,),
        {1: 6, 0: 7},
        {5: 3, 7: 1, 6: 2},
        15,
    ),
    Case("a video of one frame", (0,), (), 0, (0,), {}, {0: 0}, 1, num_frames=1),
    Case("of two frames", (0,), (), 1, (0,), {}, {0: 1}, 1, num_frames=2),
    Case(
        "of fifteen frames",
        (0,),
        range(1, 14),
        14,
        (0,),
        {row: 13 - row for row in range(6)},
        {0: 14, **{14 - d: d for d in range(1, 14)}},
        14,
        num_frames=15,
    ),
    Case(
        "of sixteen frames",
        (0,),
        range(1, 15),
        15,
        (0,),
        {row: 14 - row for row in range(6)},
        {0: 15, **{15 - d: d for d in range(1, 15)}},
        15,
        num_frames=16,
    ),
    Case(
        "live",
        (0,),
        range(1, 100),
        100,
        (0,),
        {row: 99 - row for row in range(6)},
        {0: 100, **{100 - d: d for d in range(1, 16)}},
        15,
        num_frames=LIVE,
    ),
    Case(
        "backward, nothing behind the end",
        (3,),
        (4, 5),
        2,
        (3,),
        {1: 4, 2: 5},
        {3: 1, 4: 2, 5: 3},
        5,
        reverse=True,
        num_frames=6,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_a_frame_looks_at(case: Case) -> None:
    selected = select_memories(
        case.cond,
        case.others,
        case.frame,
        case.reverse,
        case.num_frames,
        max_cond_frames=case.most,
    )
    conditioning = {(6, frame) for frame in case.conditioning}
    assert set(selected.memories) == conditioning | set(case.recent.items())
    assert len(selected.memories) == len(set(selected.memories))
    assert {frame: distance for distance, frame in selected.pointers} == case.pointers
    assert selected.pointer_span == case.span
    assert selected.shape == (len(selected.memories), len(selected.pointers))


def test_the_nearest_prompts_come_first() -> None:
    assert closest_cond_frames((0, 10, 20, 30), 12, 2) == (10, 20)
    assert closest_cond_frames((0, 10, 20, 30), 20, 3) == (10, 20, 30)
    assert closest_cond_frames((40, 30), 5, 2) == (40, 30)
    # Of equally distant ones the one that was prompted first.
    assert closest_cond_frames((14, 6, 10, 2), 10, 3) == (6, 10, 14)
    assert closest_cond_frames((6, 14, 10, 2, 0), 10, 4) == (6, 10, 14, 2)
