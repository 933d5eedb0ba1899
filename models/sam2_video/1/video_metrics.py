"""The sessions' figures as Prometheus metrics on Triton's own /metrics.

Each update of a Triton metric costs tens of microseconds, so steps only count in plain integers and `publish`
carries the differences over, once a second.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from session_table import SessionTable
from video_service import VideoService

STEP_SECONDS_BUCKETS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0]
# What left sessions, by kind: the table's counts.
EVICTIONS = (
    "aged_memories",
    "evicted_memories",
    "evicted_files",
    "evicted_sessions",
    "expired_sessions",
    "retired_sessions",
)
HELD = ("memories", "features", "files")


class VideoMetrics:
    """Publishes the counts of sessions and their steps; `pb_utils` is Triton's module."""

    def __init__(self, pb_utils: Any, table: SessionTable) -> None:
        self._table = table
        kinds = pb_utils.MetricFamily

        def family(name: str, description: str, kind: Any) -> Any:
            return kinds(name=f"sam2_video_{name}", description=description, kind=kind)

        # Triton keeps a metric only as long as its family, hence all are kept.
        self._steps = family("steps_total", "Steps by command and status", kinds.COUNTER)
        self._evictions = family("evictions_total", "What left sessions, by kind", kinds.COUNTER)
        self._objects = family("tracked_objects_total", "Objects in answered steps", kinds.COUNTER)
        self._bytes = family("bytes", "Bytes that sessions hold, by kind", kinds.GAUGE)
        self._sessions = family("sessions", "Open sessions", kinds.GAUGE)
        self._pending = family("pending_steps", "Steps that wait or run", kinds.GAUGE)
        self._seconds = family("step_seconds", "Seconds of a step in its turn", kinds.HISTOGRAM)
        self._objects_metric = self._objects.Metric(labels={})
        self._sessions_metric = self._sessions.Metric(labels={})
        self._pending_metric = self._pending.Metric(labels={})
        self._seconds_metric = self._seconds.Metric(labels={}, buckets=STEP_SECONDS_BUCKETS)
        self._eviction_metrics = {
            kind: self._evictions.Metric(labels={"kind": kind}) for kind in EVICTIONS
        }
        self._byte_metrics = {kind: self._bytes.Metric(labels={"kind": kind}) for kind in HELD}
        self._step_metrics: dict[tuple[str, str], Any] = {}
        self._published: Counter[Any] = Counter()
        self.steps: Counter[tuple[str, str]] = Counter()

    def observe_step(self, seconds: float) -> None:
        """Counts one step that was carried out."""
        self._seconds_metric.observe(seconds)

    def publish(self, service: VideoService) -> None:
        """Carries over what changed since the last call."""
        for key, count in self.steps.items():
            if key not in self._step_metrics:
                labels = {"command": key[0], "status": key[1]}
                self._step_metrics[key] = self._steps.Metric(labels=labels)
            self._carry_over(self._step_metrics[key], key, count)
        counts = vars(self._table.counts)
        for kind, metric in self._eviction_metrics.items():
            self._carry_over(metric, kind, counts[kind])
        objects = sum(number * steps for number, steps in service.counts.objects.items())
        self._carry_over(self._objects_metric, "objects", objects)
        states = [session.state for session in self._table]
        self._byte_metrics["memories"].set(sum(state.memory_bytes for state in states))
        self._byte_metrics["features"].set(sum(state.features_bytes for state in states))
        self._byte_metrics["files"].set(sum(state.files_bytes for state in states))
        self._sessions_metric.set(len(states))
        self._pending_metric.set(service.pending_steps)

    def _carry_over(self, metric: Any, key: Any, count: int) -> None:
        if count > self._published[key]:
            metric.increment(count - self._published[key])
            self._published[key] = count
