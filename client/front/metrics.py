"""Counts and times as Prometheus metrics; a line of JSON for each request. Never ids, keys, contents."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TextIO

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120)


@dataclass
class Outcome:
    """How a request ended; filled in by whoever answers it."""

    call: str
    status: str = "OK"
    in_bytes: int = 0
    out_bytes: int = 0


class FrontMetrics:
    """The front's own metrics, by tenant, interface and status."""

    def __init__(self, registry: CollectorRegistry, log: TextIO = sys.stderr) -> None:
        labels = ("tenant", "interface", "call")
        self._log = log
        self.requests = Counter(
            "sam2_front_requests", "Requests by status", (*labels, "status"), registry=registry
        )
        self.seconds = Histogram(
            "sam2_front_seconds",
            "Seconds until the answer",
            labels,
            buckets=SECONDS_BUCKETS,
            registry=registry,
        )
        self.in_bytes = Counter(
            "sam2_front_in_bytes", "Bytes of requests", labels, registry=registry
        )
        self.out_bytes = Counter(
            "sam2_front_out_bytes", "Bytes of answers", labels, registry=registry
        )
        self.under_way = Gauge(
            "sam2_front_under_way",
            "Requests under way",
            registry=registry,
            multiprocess_mode="livesum",
        )

    @contextmanager
    def observed(self, interface: str, call: str, tenant: str, caller: str) -> Iterator[Outcome]:
        """Counts, times and logs one request."""
        outcome, started = Outcome(call), time.perf_counter()
        self.under_way.inc()
        try:
            yield outcome
        except BaseException:
            outcome.status = "CANCELLED"
            raise
        finally:
            elapsed = time.perf_counter() - started
            self.under_way.dec()
            labels = (tenant, interface, outcome.call)
            self.requests.labels(*labels, outcome.status).inc()
            self.seconds.labels(*labels).observe(elapsed)
            self.in_bytes.labels(*labels).inc(outcome.in_bytes)
            self.out_bytes.labels(*labels).inc(outcome.out_bytes)
            self.log(
                "request",
                client=caller,
                tenant=tenant,
                interface=interface,
                call=outcome.call,
                status=outcome.status,
                in_bytes=outcome.in_bytes,
                out_bytes=outcome.out_bytes,
                ms=round(elapsed * 1e3, 1),
            )

    def log(self, event: str, **facts: Any) -> None:
        """One line of JSON."""
        line = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "event": event, **facts}
        print(json.dumps(line), file=self._log, flush=True)
