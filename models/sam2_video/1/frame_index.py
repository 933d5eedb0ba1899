"""Which frame of a video is which: numbers in the order they are shown in, and where decoding can begin.

Numbers are never calculated from times, so a variable frame rate makes no difference.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class FrameIndex:
    """times: when each frame is shown, in the stream's own unit, strictly rising; None where the file does
    not say it reliably, and numbers come by counting from the start. keys: numbers of frames that decoding
    can begin with, 0 first."""

    count: int
    times: tuple[int, ...] | None
    keys: tuple[int, ...]

    @classmethod
    def of_times(cls, times: Iterable[int], key_times: Iterable[int]) -> FrameIndex:
        ordered = tuple(sorted(times))
        places = {time: number for number, time in enumerate(ordered)}
        keys = {places[time] for time in key_times if time in places}
        return cls(len(ordered), ordered, tuple(sorted(keys | {0})))

    @classmethod
    def counted(cls, count: int) -> FrameIndex:
        return cls(count, None, (0,))

    def number_at(self, time: int | None) -> int | None:
        """The frame that is shown at a time; None where none is."""
        if self.times is None or time is None:
            return None
        number = bisect_left(self.times, time)
        return number if number < self.count and self.times[number] == time else None

    def keys_up_to(self, number: int) -> tuple[int, ...]:
        """Where decoding may begin to reach a frame, the nearest first."""
        return self.keys[: bisect_right(self.keys, number)][::-1]

    def to_bytes(self) -> bytes:
        return json.dumps([self.count, self.times, self.keys]).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> FrameIndex:
        count, times, keys = json.loads(data)
        return cls(count, None if times is None else tuple(times), tuple(keys))
