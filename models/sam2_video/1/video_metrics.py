"""The sessions' figures as Prometheus metrics on Triton's own /metrics.

Each update of a Triton metric costs tens of microseconds, so steps only count in plain integers and `publish`
carries the differences over, once a second.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from metric_families import MetricFamilies
from session_table import SessionTable
from video_decoders import VideoDecoders
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
HELD = ("memories", "features", "files", "videos")


class VideoMetrics:
    """Publishes the counts of sessions and their steps; `pb_utils` is Triton's module."""

    def __init__(self, pb_utils: Any, table: SessionTable, decoders: VideoDecoders) -> None:
        self._table, self._decoders = table, decoders
        # Kept: Triton drops metrics with their families.
        self._families = families = MetricFamilies(pb_utils, "sam2_video")
        self._steps = families.labelled_counter("steps", "Steps by command and status")
        evictions = families.labelled_counter("evictions", "What left sessions, by kind")
        held = families.labelled_gauge("bytes", "Bytes that sessions hold, by kind")
        objects = {"tracked_objects": "Objects in answered steps"}
        self._objects = families.counters(objects)["tracked_objects"]
        self._decoder_metrics = families.counters(
            {
                "video_frames": "Frames of video files that were handed to the encoder",
                "video_decoded_frames": "Frames of video files that were decoded, those on the way too",
                "video_wait_seconds": "Seconds that steps waited for a video's frame",
                "video_decoders_started": "Processes that were started to decode a video",
                "video_decoders_displaced": "Processes that ended for another video's sake",
            }
        )
        gauges = families.gauges(
            {
                "sessions": "Open sessions",
                "pending_steps": "Steps that wait or run",
                "video_decoders": "Processes that decode videos",
            }
        )
        self._processes = gauges["video_decoders"]
        self._sessions, self._pending = gauges["sessions"], gauges["pending_steps"]
        self._seconds = families.histogram(
            "step_seconds", "Seconds of a step in its turn", STEP_SECONDS_BUCKETS
        )
        self._eviction_metrics = {
            kind: evictions.Metric(labels={"kind": kind}) for kind in EVICTIONS
        }
        self._byte_metrics = {kind: held.Metric(labels={"kind": kind}) for kind in HELD}
        self._step_metrics: dict[tuple[str, str], Any] = {}
        self._published: defaultdict[Any, float] = defaultdict(float)
        self.steps: Counter[tuple[str, str]] = Counter()

    def observe_step(self, seconds: float) -> None:
        """Counts one step that was carried out."""
        self._seconds.observe(seconds)

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
        self._carry_over(self._objects, "objects", objects)
        states = [session.state for session in self._table]
        self._byte_metrics["memories"].set(sum(state.memory_bytes for state in states))
        self._byte_metrics["features"].set(sum(state.features_bytes for state in states))
        self._byte_metrics["files"].set(sum(state.files_bytes for state in states))
        self._byte_metrics["videos"].set(sum(state.video_bytes for state in states))
        counts = vars(self._decoders.counts)
        for name, metric in self._decoder_metrics.items():
            self._carry_over(metric, name, counts[name])
        self._processes.set(self._decoders.processes)
        self._sessions.set(len(states))
        self._pending.set(service.pending_steps)

    def _carry_over(self, metric: Any, key: Any, count: float) -> None:
        if count > self._published[key]:
            metric.increment(count - self._published[key])
            self._published[key] = count
