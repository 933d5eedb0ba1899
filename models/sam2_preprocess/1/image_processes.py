"""Several decoding processes: as many pictures at once as there are processors for them."""

from __future__ import annotations

import contextlib
import math
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from image_process import ImageProcess

CGROUP_CPU = Path("/sys/fs/cgroup/cpu.max")


def usable_processors(cgroup_cpu: Path = CGROUP_CPU) -> int:
    """Those that this process may run on, and no more than a container's share of time makes up."""
    allowed = len(os.sched_getaffinity(0))
    try:
        quota, period = cgroup_cpu.read_text().split()
    except OSError:  # no second version of control groups here
        return allowed
    if quota == "max":
        return allowed
    return max(1, min(allowed, math.ceil(int(quota) / int(period))))


class ImageProcesses:
    """Up to `most` decoding processes. One starts when all others are busy, and the last one used is used
    first: those that a quiet server does not need cost it nothing."""

    def __init__(self, limits: Mapping[str, float], data_type: str, most: int) -> None:
        self._limits, self._data_type = dict(limits), data_type
        self._room = threading.Semaphore(most)
        self._lock = threading.Lock()
        self._idle = [ImageProcess(self._limits, self._data_type)]

    def wait_for_room(self) -> None:
        """Takes one of `most` places, once one is free; whoever takes one leaves it again."""
        self._room.acquire()

    def leave(self) -> None:
        self._room.release()

    @contextlib.contextmanager
    def one(self) -> Iterator[ImageProcess]:
        """A process for whoever has a place."""
        with self._lock:
            idle = self._idle.pop() if self._idle else None
        process = idle or ImageProcess(self._limits, self._data_type)
        try:
            yield process
        finally:
            with self._lock:
                self._idle.append(process)

    def close(self) -> None:
        """Ends them all, when nothing is under way any more."""
        while self._idle:
            self._idle.pop().close()
