"""Tracking frame after frame, with a window of requests under way."""

from collections import deque
from dataclasses import dataclass
from typing import Any

from triton_sam2._calls import video_steps as steps
from triton_sam2._calls.flows import CallOptions, send
from triton_sam2._calls.video_replay import settle
from triton_sam2._calls.video_requests import WantedFrame, track_request
from triton_sam2._calls.video_state import VideoState
from triton_sam2._errors import CallTimeoutError, InvalidInputError, TritonSam2Error
from triton_sam2._inputs.video_prompts import checked_frame
from triton_sam2._results.tracked import TrackedFrame
from triton_sam2._transports.rpc import Deadline, InferRequest
from triton_sam2._transports.windows import Emit, SeriesFlow, StreamEnd, StreamReceive, StreamSend

# Requests under way at once where their order is kept: while one frame is tracked, the next one arrives and
# is encoded. More would only wait in the server.
STREAM_WINDOW = 2


@dataclass(frozen=True)
class Run:
    """Frames to track: from `first` to `last` (None: to the end), in a direction."""

    first: int
    last: int | None
    reverse: bool

    def holds(self, frame_idx: int) -> bool:
        """Whether a frame at or behind the first one belongs to it."""
        if self.reverse:
            return frame_idx >= (self.last or 0)
        return self.last is None or frame_idx <= self.last


def track_run(
    state: VideoState, run: Run, wanted: WantedFrame, options: CallOptions, window: int
) -> SeriesFlow[TrackedFrame]:
    """Track frames and hand each over, up to `window` requests under way; more than 1 needs a stream."""
    step = -1 if run.reverse else 1
    following = run.first
    under_way: deque[tuple[int, InferRequest]] = deque()
    changes = state.changes
    while True:
        if state.changes != changes:
            # Prompts came in between, of which requests under way know nothing: those are made again.
            following = under_way[0][0] if under_way else following
            under_way.clear()
            yield StreamEnd()
            yield from settle(state, options)
            changes = state.changes
        while len(under_way) < window and run.holds(following):
            request = yield from track_request(state, following, run.reverse, wanted, options)
            if request is None:
                run = Run(run.first, following - 1, run.reverse)
                break
            state.unsettled[following] = run.reverse
            if window > 1:
                yield StreamSend(request)
            under_way.append((following, request))
            following += step
        if not under_way:
            return
        frame_idx, request = under_way.popleft()
        try:
            if window > 1:
                answer = yield StreamReceive(request)
            else:
                answer = yield from send(request, options, Deadline(options.timeout_s))
            shown = steps.note_answer(state, frame_idx, run.reverse, answer)
        except TritonSam2Error as error:
            if isinstance(error, CallTimeoutError):
                raise
            # A stream says neither why nor goes on; a call of its own does, with retries, and with the
            # image where the server holds it no more.
            yield StreamEnd()
            under_way.clear()
            shown = yield from steps.track(state, frame_idx, run.reverse, wanted, options)
            following = frame_idx + step
        state.last_shown[run.reverse] = frame_idx
        yield Emit(shown)


def first_prompted(account: dict[str, Any]) -> int:
    """Where tracking begins unless somebody says so: the earliest prompted frame of any object."""
    frames = [frame for one in account["objects"].values() for frame in one["conditioning_frames"]]
    if not frames:
        raise InvalidInputError(
            "propagate_in_video: no object has a prompt yet; call add_new_points_or_box or add_new_mask first"
        )
    return int(min(frames))


def frames_to_track(
    start: int, most: int | None, reverse: bool, num_frames: int | None, resume: bool = False
) -> Run | None:
    """The frames that Meta's generator goes through, `most` + 1 of them; backward from frame 0 none.

    A run that is resumed does begin with frame 0 if that is what is left.
    """
    if most is not None:
        checked_frame(most, "max_frame_num_to_track")
    if num_frames is not None and start >= num_frames:
        if resume:
            return None
        raise InvalidInputError(
            f"start_frame_idx: expected less than the video's {num_frames} frames, got {start}"
        )
    if reverse:
        last = 0 if most is None else max(start - most, 0)
        return Run(start, last, True) if start > 0 or resume else None
    end = None if num_frames is None else num_frames - 1
    if most is None:
        return Run(start, end, False)
    return Run(start, start + most if end is None else min(start + most, end), False)
