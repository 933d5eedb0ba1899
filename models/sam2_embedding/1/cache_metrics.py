"""The cache's figures as Prometheus metrics on Triton's own /metrics.

Each update of a Triton metric costs tens of microseconds, so requests only count in plain integers and
`publish` carries the differences over, once a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metric_families import MetricFamilies
from request_gate import RequestGate
from tenants import Tenants

ENCODE_SECONDS_BUCKETS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]

SERVICE_COUNTERS = {
    "hits": "Requests answered from the embedding cache",
    "misses": "Requests that waited for an encode",
    "joined": "Requests that waited for an encode that another request had started",
    "unknown_ids": "Requests by an image id that stands for nothing (NOT_FOUND)",
    "overloaded": "Requests refused because too many encodes were pending (UNAVAILABLE)",
    "encodes": "Encodes started",
    "failed_encodes": "Encodes that failed",
}
GATE_COUNTERS = {
    "refused_requests": "Requests refused because too many were in flight (UNAVAILABLE)",
}
CACHE_COUNTERS = {
    "evictions": "Images dropped to stay within the byte budget",
    "expirations": "Images dropped because nobody asked for them",
    "rejected": "Images not kept because they exceed the whole budget",
    "forgotten": "Images dropped at a client's request",
    "retired": "Images dropped because the model was reloaded with other weights",
}
GAUGES = {
    "entries": "Images in the embedding cache",
    "bytes": "Bytes of embeddings in the cache",
    "names": "Image ids that stand for images in the cache",
    "pending_encodes": "Encodes in flight or waiting",
}
GATE_GAUGES = {
    "requests_in_flight": "Requests taken on and not answered yet",
}


class CacheMetrics:
    """Publishes the counts of tenants' caches and services and of the gate before them.

    A tenant's have its name as a label; without tenants there is no label. `pb_utils` is Triton's module.
    """

    def __init__(self, pb_utils: Any, tenants: Tenants, gate: RequestGate) -> None:
        self._tenants = tenants
        self._gate = gate
        self._families = MetricFamilies(pb_utils, "sam2_embedding_cache")
        self._gate_figures = _Figures(self._families, GATE_COUNTERS, GATE_GAUGES, {})
        self._figures: dict[str, _Figures] = {}
        self._encode_seconds = self._families.histogram(
            "encode_seconds",
            "Seconds from image bytes to embeddings, preprocessing included",
            ENCODE_SECONDS_BUCKETS,
        )
        self.publish()

    def observe_encode(self, seconds: float) -> None:
        """Counts one finished encode; rare enough to be published at once."""
        self._encode_seconds.observe(seconds)

    def publish(self) -> None:
        """Carries over what changed since the last call."""
        self._gate_figures.publish(
            {"refused_requests": self._gate.refused, "requests_in_flight": self._gate.in_flight}
        )
        services = dict(self._tenants.services())
        # Those of tenants who are gone go too.
        self._figures = {name: self._figures_of(name) for name in services}
        for name, service in services.items():
            self._figures[name].publish(
                vars(service.counts)
                | vars(service.cache.counts)
                | {
                    "entries": len(service.cache),
                    "bytes": service.cache.size_bytes,
                    "names": service.cache.names,
                    "pending_encodes": service.pending_encodes,
                }
            )

    def _figures_of(self, tenant: str) -> _Figures:
        labels = {"tenant": tenant} if tenant else {}
        return self._figures.get(tenant) or _Figures(
            self._families, SERVICE_COUNTERS | CACHE_COUNTERS, GAUGES, labels
        )


class _Figures:
    """Counters and gauges of the same labels, updated where their values changed."""

    def __init__(
        self,
        families: MetricFamilies,
        counters: Mapping[str, str],
        gauges: Mapping[str, str],
        labels: Mapping[str, str],
    ) -> None:
        self._counters = families.counters(counters, labels)
        self._gauges = families.gauges(gauges, labels)
        self._published = dict.fromkeys([*self._counters, *self._gauges], 0)

    def publish(self, current: Mapping[str, int]) -> None:
        for name, before in self._published.items():
            now = current[name]
            if now == before:
                continue
            if name in self._counters:
                self._counters[name].increment(now - before)
            else:
                self._gauges[name].set(now)
            self._published[name] = now
