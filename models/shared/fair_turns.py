"""Who is worked on next: tenants in turns, and within a tenant first come, first served.

For one asyncio event loop. How many may wait is not judged here: see tenant_shares.py.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tenant_shares import NO_TENANT


class FairTurns:
    """At most `at_once` turns at a time; of them a tenant has at most `tenant_at_once`, if that is given."""

    def __init__(self, at_once: int, tenant_at_once: int | None = None) -> None:
        self._free = at_once
        self._most = {NO_TENANT: at_once}
        self._tenant_at_once = at_once if tenant_at_once is None else tenant_at_once
        self._running: Counter[str] = Counter()
        # In the order of their next turn.
        self._lines: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def turn(self, tenant: str = NO_TENANT) -> AsyncIterator[None]:
        """Waits for a turn and holds it."""
        await self._wait(tenant)
        try:
            yield
        finally:
            self._end(tenant)

    async def _wait(self, tenant: str) -> None:
        # Where a turn is free, whoever waits has as many as they may have.
        if self._free and self._may_run(tenant):
            self._begin(tenant)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(tenant, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                # Its turn came at the same moment: somebody else's now.
                self._end(tenant)
            else:
                self._leave_line(tenant, turn)
            raise

    def _may_run(self, tenant: str) -> bool:
        return self._running[tenant] < self._most.get(tenant, self._tenant_at_once)

    def _begin(self, tenant: str) -> None:
        self._free -= 1
        self._running[tenant] += 1

    def _end(self, tenant: str) -> None:
        self._free += 1
        self._running[tenant] -= 1
        if not self._running[tenant]:
            del self._running[tenant]
        while (
            self._free and (following := next(filter(self._may_run, self._lines), None)) is not None
        ):
            line = self._lines.pop(following)
            turn = line.popleft()
            if line:
                self._lines[following] = line  # behind all others
            if not turn.done():
                self._begin(following)
                turn.set_result(None)

    def _leave_line(self, tenant: str, turn: asyncio.Future[None]) -> None:
        line = self._lines.get(tenant)
        if line is not None and turn in line:
            line.remove(turn)
            if not line:
                del self._lines[tenant]
