"""Long work beside short work: one thread that lets the long ones take turns, step by step.

Short requests are answered by the caller's own thread and wait for none of them; a long one waits for one
step of each other long one at a time. Pure: no Triton, no clock.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor


class FairLane:
    """At most `max_jobs` iterators under way, which together hold at most `max_bytes`.

    A job reports its own failures: what its iterator raises ends that job and is not seen by anybody.
    """

    def __init__(self, max_jobs: int, max_bytes: int, name: str) -> None:
        self._max_jobs = max_jobs
        self._max_bytes = max_bytes
        self._thread = ThreadPoolExecutor(1, name)
        self._lock = threading.Lock()
        self._jobs = 0
        self._bytes = 0

    @property
    def jobs(self) -> int:
        return self._jobs

    def take(self, steps: Iterator[None], held_bytes: int) -> bool:
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

    def _take_turn(self, steps: Iterator[None], held_bytes: int) -> None:
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
