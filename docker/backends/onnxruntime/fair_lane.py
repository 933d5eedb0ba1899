"""Work of many requests on few threads: short ones in a row, long ones beside them in turns, both bounded.

A request is an iterator of steps. Its first step says in which lane the others go, so that whoever takes
requests on is free for the next one at once, and sees how many wait. Pure: no Triton, no clock.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from background import give_way


class LaneFullError(RuntimeError):
    """As much work waits in a lane as it takes on; the message is the lane's own."""


class FairLane:
    """One thread; at most `max_jobs` requests under way, which together hold at most `max_bytes`.

    Each has one step at a time, then the others have their turn: a request of one step waits for those before
    it, one of many steps for one step of each other. A request reports its own failures: what its iterator
    raises ends it and is not seen by anybody.
    """

    def __init__(
        self, max_jobs: int, max_bytes: int, name: str, full: str, *, gives_way: bool = False
    ) -> None:
        """`full` is what a request is told for which there is no room.

        gives_way: the thread leaves the processors to others that want them.
        """
        self.full = full
        self._max_jobs = max_jobs
        self._max_bytes = max_bytes
        self._thread = ThreadPoolExecutor(1, name, give_way if gives_way else None)
        self._lock = threading.Lock()
        self._jobs = 0
        self._bytes = 0

    @property
    def jobs(self) -> int:
        return self._jobs

    def check_room(self) -> None:
        """Raises LaneFullError where even a request that holds nothing finds no place: before it is read."""
        if self._jobs >= self._max_jobs or self._bytes >= self._max_bytes:
            raise LaneFullError(self.full)

    def take(self, steps: Steps, held_bytes: int) -> bool:
        """Works through `steps` from now on; False, and nothing done, where there is no room.

        One job alone is always taken: its own size is for others to judge.
        """
        with self._lock:
            if self._jobs and (
                self._jobs >= self._max_jobs or self._bytes + held_bytes > self._max_bytes
            ):
                return False
            self._jobs += 1
            self._bytes += held_bytes
        self._thread.submit(self._take_turn, steps, held_bytes)
        return True

    def close(self) -> None:
        """Works off what was taken; takes nothing any more."""
        while self._jobs:
            self._thread.submit(lambda: None).result()
        self._thread.shutdown()

    def _take_turn(self, steps: Steps, held_bytes: int) -> None:
        unfinished = False
        try:
            unfinished = next(steps, StopIteration) is not StopIteration
        finally:
            if unfinished:
                # At the end of the queue: every other job has its turn before.
                self._thread.submit(self._take_turn, steps, held_bytes)
            else:
                with self._lock:
                    self._jobs -= 1
                    self._bytes -= held_bytes


@dataclass(frozen=True)
class Place:
    """What a request's first step asks for: a place in this lane, for the bytes that it holds meanwhile."""

    lane: FairLane
    held_bytes: int


Steps = Generator[Place | None, None, None]


def take_on(steps: Steps) -> None:
    """Begins a request: it ends with its first step, or goes on in the lane that this step names.

    Where the lane is full, LaneFullError is raised in it, which it answers.
    """
    place = next(steps, None)
    if place is not None and not place.lane.take(steps, place.held_bytes):
        with contextlib.suppress(StopIteration):
            steps.throw(LaneFullError(place.lane.full))
