"""The bytes that all tenants' caches may hold together, and whose images go where there is no room.

Pure bookkeeping for one thread.
"""

from __future__ import annotations

from typing import Protocol

from tenant_shares import NO_TENANT


class Holder(Protocol):
    """A tenant's cache."""

    @property
    def tenant(self) -> str: ...

    @property
    def size_bytes(self) -> int: ...

    def evict_oldest(self) -> bool:
        """Drops the least recently used image; False where there is none."""


class CacheBudget:
    """Room for images, made at the cost of whoever holds most.

    So nobody who holds no more than an even share loses an image to another tenant, and whoever is alone has
    all of it.
    """

    def __init__(self, budget_bytes: int, tenant_percent: int = 100) -> None:
        """Of the budget, a tenant may hold `tenant_percent` at most, whatever is free."""
        self._budget_bytes = budget_bytes
        self._most_of_a_tenant = budget_bytes * tenant_percent // 100
        self._holders: list[Holder] = []

    def join(self, holder: Holder) -> None:
        """This cache holds a part from now on."""
        self._holders.append(holder)

    def leave(self, holder: Holder) -> None:
        """This cache, which is empty, is no more."""
        self._holders.remove(holder)

    def may_hold(self, holder: Holder, size_bytes: int) -> bool:
        """Whether so many bytes are within what `holder` may have at most."""
        return size_bytes <= self._most_of(holder)

    def make_room(self, holder: Holder, size_bytes: int) -> bool:
        """Evicts until `holder` has room for so many bytes more, which it may hold.

        False where it has none: what is in the way is within the even share of others.
        """
        while holder.size_bytes + size_bytes > self._most_of(holder):
            holder.evict_oldest()
        while sum(other.size_bytes for other in self._holders) + size_bytes > self._budget_bytes:
            # What is to come counts as held. Of two who hold the same, it is the newcomer's own that goes.
            largest = max(
                self._holders,
                key=lambda other: (
                    other.size_bytes + (size_bytes if other is holder else 0),
                    other is holder,
                ),
            )
            if not largest.evict_oldest():
                return False
        return True

    def _most_of(self, holder: Holder) -> int:
        return self._budget_bytes if holder.tenant == NO_TENANT else self._most_of_a_tenant
