"""Who is worked on and who waits: a bounded number of each, first come, first served."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


class OverloadedError(RuntimeError):
    """More requests wait than the server lets wait."""


class Turns:
    """At most max_running requests at a time and max_waiting that wait; `changed` hears of changes."""

    def __init__(
        self, max_running: int, max_waiting: int, changed: Callable[[int, int], None]
    ) -> None:
        self._max_running = max_running
        self._max_waiting = max_waiting
        self._changed = changed
        self._slots = asyncio.Semaphore(max_running)
        self.running = 0
        self.waiting = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Waits for a turn and holds it; raises OverloadedError where too many wait already."""
        if self.running + self.waiting >= self._max_running + self._max_waiting:
            raise OverloadedError(
                f"parameters: {self.running} images are being segmented as a whole and {self.waiting} wait"
                f" (max_running {self._max_running}, max_waiting {self._max_waiting}); try again in a moment"
            )
        self._count(0, 1)
        try:
            await self._slots.acquire()
        finally:
            self._count(0, -1)
        self._count(1, 0)
        try:
            yield
        finally:
            self._count(-1, 0)
            self._slots.release()

    def _count(self, running: int, waiting: int) -> None:
        self.running += running
        self.waiting += waiting
        self._changed(self.running, self.waiting)
