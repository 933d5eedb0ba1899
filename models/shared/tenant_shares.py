"""How much of something bounded is taken, by whom, and that no tenant takes all of it. Pure bookkeeping."""

from __future__ import annotations

from collections import Counter

# Whoever calls without a tenant: the only one there is where no front tells callers apart.
NO_TENANT = ""


class ShareFullError(RuntimeError):
    """There is no more, or no more for this tenant; the message says which, naming the limit."""


class TenantShares:
    """At most `most` of something, of which a tenant may have `tenant_percent`. For one thread.

    Requests without a tenant may have all of it: without API keys there is nobody else.
    """

    def __init__(self, limit: str, most: int, tenant_percent: int = 100) -> None:
        """`limit` is what config.pbtxt says, name and value, for the messages."""
        self._limit = limit
        self._most = most
        self._tenant_percent = tenant_percent
        self._taken: Counter[str] = Counter()
        self.total = 0

    def most_of(self, tenant: str) -> int:
        """What this tenant may have, of whatever is free."""
        if tenant == NO_TENANT:
            return self._most
        return max(1, self._most * self._tenant_percent // 100)

    def taken_by(self, tenant: str) -> int:
        """What this tenant has."""
        return self._taken.get(tenant, 0)

    def check(self, tenant: str, amount: int = 1) -> None:
        """Raises ShareFullError where so much is not left for this tenant."""
        if self.total + amount > self._most:
            # No figure of what others have.
            raise ShareFullError(self._limit)
        if self.taken_by(tenant) + amount > self.most_of(tenant):
            raise ShareFullError(f"{self._limit}, of which a tenant has {self.most_of(tenant)}")

    def take(self, tenant: str, amount: int = 1) -> None:
        """Takes so much, or raises ShareFullError and takes nothing; whoever takes gives back."""
        self.check(tenant, amount)
        self._taken[tenant] += amount
        self.total += amount

    def give_back(self, tenant: str, amount: int = 1) -> None:
        """What was taken is free again."""
        self._taken[tenant] -= amount
        self.total -= amount
        if not self._taken[tenant]:
            del self._taken[tenant]
