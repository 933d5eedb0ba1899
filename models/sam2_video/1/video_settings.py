"""The parameters in sam2_video's config.pbtxt, checked when the model is loaded."""

from __future__ import annotations

from dataclasses import dataclass, fields

from mask_encoding import OutputLimits
from memory_selection import MASK_MEMORIES
from model_parameters import Parameters, read_whole_numbers
from open_video import VideoLimits
from session_steps import StepLimits
from session_table import TableLimits
from video_graphs import AttentionRange

# Parameters whose least value that makes sense is another than 1.
LEAST_VALUES = {
    "memory_window_frames": MASK_MEMORIES - 1,
    "frame_bytes_per_session": 0,
    "attention_memories": 0,
    "attention_pointers": 0,
}


@dataclass(frozen=True)
class ServiceLimits:
    """Steps that wait or run (of a session, over all sessions, in bytes they brought), and ids' length."""

    max_session_id_bytes: int
    max_pending_steps: int
    max_concurrent_steps: int
    max_pending_bytes: int
    # What one of several tenants may have of these, and of requests in flight.
    tenant_percent: int


@dataclass(frozen=True)
class VideoSettings:
    """All limits, by who keeps them."""

    max_requests_in_flight: int
    service: ServiceLimits
    table: TableLimits
    step: StepLimits
    output: OutputLimits
    video: VideoLimits
    attention: AttentionRange


def parse_settings(parameters: Parameters) -> VideoSettings:
    """Reads the `parameters` of the model configuration as Triton hands them over, as JSON.

    Raises:
        InvalidSettingError: naming the first parameter that is missing, unknown or out of range.
    """
    groups = (ServiceLimits, TableLimits, StepLimits, OutputLimits, VideoLimits, AttentionRange)
    names = ["max_requests_in_flight", *(f.name for group in groups for f in fields(group))]
    least = {name: LEAST_VALUES.get(name, 1) for name in names}
    values = read_whole_numbers("sam2_video", parameters, least)

    def of(group: type) -> dict[str, int]:
        return {f.name: values[f.name] for f in fields(group)}

    return VideoSettings(
        values["max_requests_in_flight"],
        ServiceLimits(**of(ServiceLimits)),
        TableLimits(**of(TableLimits)),
        StepLimits(**of(StepLimits)),
        OutputLimits(**of(OutputLimits)),
        VideoLimits(**of(VideoLimits)),
        AttentionRange(**of(AttentionRange)),
    )
