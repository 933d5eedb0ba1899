"""How many requests a model has taken on and not answered yet, and the bound on them.

A model that answers from an event loop takes every request at once, so Triton's queue before it stays empty
and bounds nothing. Pure: no Triton.
"""

from __future__ import annotations

import threading


class GateFullError(RuntimeError):
    """As many requests are in flight as the model takes on."""


class RequestGate:
    """Counts requests in and out, from any thread."""

    def __init__(self, max_requests_in_flight: int) -> None:
        self._limit = max_requests_in_flight
        self._lock = threading.Lock()
        self._in_flight = 0
        self._refused = 0

    @property
    def in_flight(self) -> int:
        return self._in_flight

    @property
    def refused(self) -> int:
        return self._refused

    def enter(self) -> None:
        """One request more; whoever enters leaves again. At the limit raises GateFullError, and counts it."""
        with self._lock:
            if self._in_flight >= self._limit:
                self._refused += 1
                raise GateFullError(
                    f"{self._in_flight} requests are in flight already (max_requests_in_flight"
                    f" {self._limit}); try again in a moment"
                )
            self._in_flight += 1

    def leave(self) -> None:
        """One request has its answer."""
        with self._lock:
            self._in_flight -= 1
