"""The cache's figures as Prometheus metrics on Triton's own /metrics.

Each update of a Triton metric costs tens of microseconds, so requests only count in plain integers and
`publish` carries the differences over, once a second.
"""

from __future__ import annotations

from typing import Any

from embedding_cache import EmbeddingCache
from embedding_service import EmbeddingService
from metric_families import MetricFamilies
from request_gate import RequestGate

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
    "requests_in_flight": "Requests taken on and not answered yet",
}


class CacheMetrics:
    """Publishes the counts of a cache, its service and the gate before it; `pb_utils` is Triton's module."""

    def __init__(
        self, pb_utils: Any, cache: EmbeddingCache, service: EmbeddingService, gate: RequestGate
    ) -> None:
        self._cache = cache
        self._service = service
        self._gate = gate
        self._families = MetricFamilies(pb_utils, "sam2_embedding_cache")
        self._counters = self._families.counters(SERVICE_COUNTERS | GATE_COUNTERS | CACHE_COUNTERS)
        self._gauges = self._families.gauges(GAUGES)
        self._encode_seconds = self._families.histogram(
            "encode_seconds",
            "Seconds from image bytes to embeddings, preprocessing included",
            ENCODE_SECONDS_BUCKETS,
        )
        self._published = dict.fromkeys(self._counters, 0)

    def observe_encode(self, seconds: float) -> None:
        """Counts one finished encode; rare enough to be published at once."""
        self._encode_seconds.observe(seconds)

    def publish(self) -> None:
        """Carries over what changed since the last call."""
        current = vars(self._service.counts) | vars(self._cache.counts)
        current = current | {"refused_requests": self._gate.refused}
        for name, metric in self._counters.items():
            if current[name] > self._published[name]:
                metric.increment(current[name] - self._published[name])
                self._published[name] = current[name]
        self._gauges["entries"].set(len(self._cache))
        self._gauges["bytes"].set(self._cache.size_bytes)
        self._gauges["names"].set(self._cache.names)
        self._gauges["pending_encodes"].set(self._service.pending_encodes)
        self._gauges["requests_in_flight"].set(self._gate.in_flight)
