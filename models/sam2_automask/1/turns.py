"""Who is worked on and who waits: a bounded number of each, tenants in turns, each of them with a share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fair_turns import FairTurns
from tenant_shares import NO_TENANT, ShareFullError, TenantShares


class OverloadedError(RuntimeError):
    """More requests wait than the server lets wait, of everybody or of this tenant."""


class Turns:
    """At most max_running requests at a time and max_waiting that wait; `changed` hears of changes.

    A tenant has at most `tenant_percent` of either, and at least one that runs.
    """

    def __init__(
        self,
        max_running: int,
        max_waiting: int,
        changed: Callable[[int, int], None],
        tenant_percent: int = 100,
    ) -> None:
        self._changed = changed
        limit = f"max_running {max_running}, max_waiting {max_waiting}"
        self._places = TenantShares(limit, max_running + max_waiting, tenant_percent)
        self._turns = FairTurns(max_running, max(1, max_running * tenant_percent // 100))
        self.running = 0
        self.waiting = 0

    @asynccontextmanager
    async def turn(self, tenant: str = NO_TENANT) -> AsyncIterator[None]:
        """Waits for a turn and holds it; raises OverloadedError where too many wait already."""
        try:
            self._places.take(tenant)
        except ShareFullError as error:
            raise OverloadedError(
                "parameters: as many images are segmented as a whole, or wait for it, as may"
                f" ({error}); try again in a moment"
            ) from error
        try:
            async with self._turn(tenant):
                yield
        finally:
            self._places.give_back(tenant)

    @asynccontextmanager
    async def _turn(self, tenant: str) -> AsyncIterator[None]:
        self._count(0, 1)
        waits = True
        try:
            async with self._turns.turn(tenant):
                self._count(1, -1)
                waits = False
                yield
        finally:
            if waits:
                self._count(0, -1)
            else:
                self._count(-1, 0)

    def _count(self, running: int, waiting: int) -> None:
        self.running += running
        self.waiting += waiting
        self._changed(self.running, self.waiting)
