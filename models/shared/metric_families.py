"""A model's own metrics on Triton's /metrics: names, descriptions, and nothing more to say for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class MetricFamilies:
    """Makes metrics whose names begin with the model's prefix; `pb_utils` is Triton's module."""

    def __init__(self, pb_utils: Any, prefix: str) -> None:
        self._pb_utils = pb_utils
        self._prefix = prefix
        # Triton keeps a metric only as long as its family, and a family has metrics of any labels.
        self._families: dict[str, Any] = {}

    def counters(
        self, descriptions: Mapping[str, str], labels: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """A counter for each name, which Prometheus's readers see with `_total` behind it."""
        kind = self._pb_utils.MetricFamily.COUNTER
        return {
            name: self._metric(f"{name}_total", description, kind, labels)
            for name, description in descriptions.items()
        }

    def gauges(
        self, descriptions: Mapping[str, str], labels: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """A gauge for each name."""
        kind = self._pb_utils.MetricFamily.GAUGE
        return {
            name: self._metric(name, description, kind, labels)
            for name, description in descriptions.items()
        }

    def histogram(self, name: str, description: str, buckets: Sequence[float]) -> Any:
        """One histogram."""
        kind = self._pb_utils.MetricFamily.HISTOGRAM
        return self._metric(name, description, kind, None, buckets=list(buckets))

    def labelled_counter(self, name: str, description: str) -> Any:
        """A family whose counters, `_total` in their name, are made with `.Metric(labels=...)`."""
        return self._family(f"{name}_total", description, self._pb_utils.MetricFamily.COUNTER)

    def labelled_gauge(self, name: str, description: str) -> Any:
        """The same with gauges."""
        return self._family(name, description, self._pb_utils.MetricFamily.GAUGE)

    def _metric(
        self,
        name: str,
        description: str,
        kind: Any,
        labels: Mapping[str, str] | None,
        **options: Any,
    ) -> Any:
        return self._family(name, description, kind).Metric(labels=dict(labels or {}), **options)

    def _family(self, name: str, description: str, kind: Any) -> Any:
        if name not in self._families:
            self._families[name] = self._pb_utils.MetricFamily(
                name=f"{self._prefix}_{name}", description=description, kind=kind
            )
        return self._families[name]
