"""How many requests a model has taken on and not answered yet, and the bound on them.

A model that answers from an event loop takes every request at once, so Triton's queue before it stays empty
and bounds nothing. Pure: no Triton.
"""

from __future__ import annotations

import threading

from tenant_shares import NO_TENANT, ShareFullError, TenantShares


class GateFullError(RuntimeError):
    """As many requests are in flight as the model takes on, from everybody or from this tenant."""


class RequestGate:
    """Counts requests in and out, from any thread."""

    def __init__(self, max_requests_in_flight: int, tenant_percent: int = 100) -> None:
        limit = f"max_requests_in_flight {max_requests_in_flight}"
        self._shares = TenantShares(limit, max_requests_in_flight, tenant_percent)
        self._lock = threading.Lock()
        self._refused = 0

    @property
    def in_flight(self) -> int:
        return self._shares.total

    @property
    def refused(self) -> int:
        return self._refused

    def enter(self, tenant: str = NO_TENANT) -> None:
        """One request more; whoever enters leaves again. At the limit raises GateFullError, and counts it."""
        with self._lock:
            try:
                self._shares.take(tenant)
            except ShareFullError as error:
                self._refused += 1
                raise GateFullError(
                    f"as many requests are in flight already as may be ({error}); try again in a moment"
                ) from error

    def leave(self, tenant: str = NO_TENANT) -> None:
        """One request has its answer."""
        with self._lock:
            self._shares.give_back(tenant)
