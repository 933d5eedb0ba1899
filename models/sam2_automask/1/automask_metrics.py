"""What was generated, as Prometheus metrics on Triton's own /metrics; published once a request."""

from __future__ import annotations

from typing import Any

from mask_generation import GenerationCounts
from metric_families import MetricFamilies

SECONDS_BUCKETS = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0]
COUNTERS = {
    "requests": "Requests that were worked on to their end",
    "cancelled": "Requests given up because their client no longer waited",
    "overloaded": "Requests refused because too many were waiting (UNAVAILABLE)",
    "out_of_time": "Requests given up because they took longer than max_seconds",
    "crops": "Images and crops of images that were searched",
    "points": "Points that were decoded",
    "candidates": "Masks before all filters",
    "masks": "Masks in answers",
}
GAUGES = {
    "running": "Requests that are being worked on",
    "waiting": "Requests that wait for their turn",
}


class AutomaskMetrics:
    """Counters, gauges and the time of a request; `pb_utils` is Triton's module."""

    def __init__(self, pb_utils: Any) -> None:
        self._families = MetricFamilies(pb_utils, "sam2_automask")
        self._counters = self._families.counters(COUNTERS)
        self._gauges = self._families.gauges(GAUGES)
        self._seconds = self._families.histogram(
            "seconds", "Seconds that a request was worked on, waiting left out", SECONDS_BUCKETS
        )

    def count(self, name: str, number: int = 1) -> None:
        """Adds to a counter of COUNTERS."""
        if number:
            self._counters[name].increment(number)

    def set_load(self, running: int, waiting: int) -> None:
        """Publishes how many requests are under way."""
        self._gauges["running"].set(running)
        self._gauges["waiting"].set(waiting)

    def observe(self, counts: GenerationCounts, seconds: float) -> None:
        """What a request did, however it ended."""
        for name in ("crops", "points", "candidates"):
            self.count(name, getattr(counts, name))
        self._seconds.observe(seconds)
