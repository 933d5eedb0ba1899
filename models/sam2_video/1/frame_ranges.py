"""Sets of frame numbers that are mostly consecutive, kept as ranges: a stream of hours takes a few bytes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator


class FrameRanges:
    """A set of whole numbers, as sorted, disjoint and non-adjacent ranges."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []  # behind each range's last number

    def __contains__(self, frame: int) -> bool:
        index = bisect_right(self._starts, frame) - 1
        return index >= 0 and frame < self._stops[index]

    def __bool__(self) -> bool:
        return bool(self._starts)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """First and last number of each range."""
        return ((start, stop - 1) for start, stop in zip(self._starts, self._stops, strict=True))

    @property
    def count(self) -> int:
        """How many ranges there are."""
        return len(self._starts)

    def copy(self) -> FrameRanges:
        copied = FrameRanges()
        copied._starts, copied._stops = self._starts[:], self._stops[:]
        return copied

    def add(self, frame: int) -> None:
        if frame in self:
            return
        right = bisect_right(self._starts, frame)
        joins_left = right > 0 and self._stops[right - 1] == frame
        joins_right = right < len(self._starts) and self._starts[right] == frame + 1
        if joins_left and joins_right:
            self._stops[right - 1] = self._stops.pop(right)
            del self._starts[right]
        elif joins_left:
            self._stops[right - 1] = frame + 1
        elif joins_right:
            self._starts[right] = frame
        else:
            self._starts.insert(right, frame)
            self._stops.insert(right, frame + 1)

    def discard(self, frame: int) -> None:
        if frame not in self:
            return
        index = bisect_right(self._starts, frame) - 1
        start, stop = self._starts[index], self._stops[index]
        pieces = [piece for piece in ((start, frame), (frame + 1, stop)) if piece[0] < piece[1]]
        self._starts[index : index + 1] = [piece[0] for piece in pieces]
        self._stops[index : index + 1] = [piece[1] for piece in pieces]
