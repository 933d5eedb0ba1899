"""What the blocking and the asyncio video client have in common: calls, their arguments checked."""

import os
import uuid
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from triton_sam2._calls import video_steps as steps
from triton_sam2._calls.arguments import Formats, Settings
from triton_sam2._calls.video_propagation import (
    STREAM_WINDOW,
    first_prompted,
    frames_to_track,
    track_run,
)
from triton_sam2._calls.video_replay import replay, settle
from triton_sam2._calls.video_requests import WantedFrame
from triton_sam2._calls.video_state import ClearStep, PromptStep, RemoveStep, VideoState
from triton_sam2._errors import InvalidInputError
from triton_sam2._inputs.frames import NoFrames, VideoSource, open_source
from triton_sam2._inputs.images import image_file_bytes
from triton_sam2._inputs.video_prompts import (
    checked_frame,
    mask_tensors,
    object_tensor,
    point_tensors,
)
from triton_sam2._results.segmentation import check_formats
from triton_sam2._results.tracked import TrackedFrame
from triton_sam2._transports.rpc import Flow
from triton_sam2._transports.windows import SeriesFlow


class VideoCalls:
    """Flows for video sessions."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._window = STREAM_WINDOW if settings.endpoint.is_grpc else 1

    def open(
        self,
        video: VideoSource | None,
        *,
        upload: bool,
        frame_format: str,
        num_frames: int | None,
        session_id: str | None,
        options: dict[str, Any],
    ) -> VideoState:
        """A state for a video, before anything is asked of the server; reads the file's index."""
        name = uuid.uuid4().hex if session_id is None else _checked_session(session_id)
        checked = _checked_options(options)
        if video is None:
            return VideoState(NoFrames(), checked, name, server_has_frames=True)
        if upload:
            if num_frames is not None:
                raise InvalidInputError("num_frames: the server counts the frames of an upload")
            content = _video_bytes(video)
            return VideoState(NoFrames(), checked, name, upload=content, server_has_frames=True)
        source = open_source(video, frame_format, num_frames)
        return VideoState(source, checked, name, num_frames=source.num_frames)

    def take_up(self, session_id: str, video: VideoSource | None, frame_format: str) -> VideoState:
        """A state for a session that lives on the server already; else as `open`."""
        return self.open(
            video,
            upload=False,
            frame_format=frame_format,
            num_frames=None,
            session_id=session_id,
            options={},
        )

    def start(self, state: VideoState, timeout: float | None) -> Flow[VideoState]:
        """Begin a session."""
        options = self.settings.call_options(timeout)
        yield from steps.start(state, options)
        if state.upload is not None:
            account = yield from steps.describe(state, options)
            state.num_frames = _number(account)
        return state

    def attach(self, state: VideoState, timeout: float | None) -> Flow[VideoState]:
        """Take up a session that somebody began."""
        account = yield from steps.describe(state, self.settings.call_options(timeout))
        state.has_past = True
        count = _number(account)
        if count is not None and state.num_frames not in (None, count):
            raise InvalidInputError(
                f"video: the session was begun for {count} frames, this video has {state.num_frames}"
            )
        options = account.get("options", {})
        state.options = {
            name: value
            for name, value in options.items()
            if name != "num_frames" and value is not None
        }
        state.num_frames = count
        state.server_has_frames = state.server_has_frames or account.get("video") is not None
        state.sent.update(dict.fromkeys(account.get("frames_held", [])))
        return state

    def status(self, state: VideoState, timeout: float | None) -> Flow[dict[str, Any]]:
        """The server's account of a session."""
        return steps.describe(state, self.settings.call_options(timeout))

    def add_points(
        self,
        state: VideoState,
        frame_idx: int,
        obj_id: int,
        prompts: tuple[ArrayLike | None, ArrayLike | None, ArrayLike | None],
        clear_old_points: bool,
        *,
        wanted: WantedFrame,
        timeout: float | None,
    ) -> Flow[TrackedFrame]:
        """Clicks and a box: points, labels, box."""
        points, labels, box = prompts
        tensors = point_tensors(obj_id, points, labels, box, clear_old_points)
        return self._prompt(state, PromptStep(checked_frame(frame_idx), tensors), wanted, timeout)

    def add_mask(
        self,
        state: VideoState,
        frame_idx: int,
        obj_id: int,
        mask: ArrayLike,
        *,
        wanted: WantedFrame,
        timeout: float | None,
    ) -> Flow[TrackedFrame]:
        """A mask as a prompt."""
        step = PromptStep(checked_frame(frame_idx), mask_tensors(obj_id, mask))
        return self._prompt(state, step, wanted, timeout)

    def clear_prompts(
        self,
        state: VideoState,
        frame_idx: int,
        obj_id: int,
        *,
        wanted: WantedFrame,
        timeout: float | None,
    ) -> Flow[TrackedFrame]:
        """An object's prompts on a frame, taken back."""
        object_tensor(obj_id)
        step = ClearStep(checked_frame(frame_idx), int(obj_id))
        options = self.settings.call_options(timeout)
        yield from settle(state, options)
        return (yield from steps.clear(state, step, wanted, options))

    def remove_object(
        self, state: VideoState, obj_id: int, strict: bool, timeout: float | None
    ) -> Flow[list[int]]:
        """An object, removed."""
        object_tensor(obj_id)
        options = self.settings.call_options(timeout)
        yield from settle(state, options)
        if not strict and obj_id not in state.object_ids:
            return state.object_ids
        return (yield from steps.remove(state, RemoveStep(int(obj_id)), options))

    def reset(self, state: VideoState, timeout: float | None) -> Flow[None]:
        """All objects, forgotten; what was not heard of goes with them."""
        options = self.settings.call_options(timeout)
        yield from steps.reset(state, options)
        state.must_replay = state.has_past = False
        state.unsettled.clear()

    def replay(self, state: VideoState, timeout: float | None) -> Flow[None]:
        """The session begun anew, with all that was done."""
        return replay(state, self.settings.call_options(timeout))

    def close(self, state: VideoState, timeout: float | None) -> Flow[None]:
        """The session, ended."""
        return steps.close(state, self.settings.call_options(timeout))

    def propagate(
        self,
        state: VideoState,
        start_frame_idx: int | None,
        max_frame_num_to_track: int | None,
        reverse: bool,
        *,
        resume: bool,
        wanted: WantedFrame,
        timeout: float | None,
    ) -> SeriesFlow[TrackedFrame]:
        """Frame after frame, tracked."""
        options = self.settings.call_options(timeout)
        yield from settle(state, options)
        start = start_frame_idx
        if resume:
            if start_frame_idx is not None:
                raise InvalidInputError("resume: goes on where it was; leave start_frame_idx out")
            shown = state.last_shown.get(reverse)
            start = None if shown is None else shown + (-1 if reverse else 1)
            if start is not None and start < 0:
                return
        if start is None:
            account = yield from steps.describe(state, options)
            start = first_prompted(account)
        run = frames_to_track(
            checked_frame(start, "start_frame_idx"),
            max_frame_num_to_track,
            reverse,
            state.num_frames,
            resume,
        )
        if run is not None:
            yield from track_run(state, run, wanted, options, self._window)

    def _prompt(
        self, state: VideoState, step: PromptStep, wanted: WantedFrame, timeout: float | None
    ) -> Flow[TrackedFrame]:
        options = self.settings.call_options(timeout)
        yield from settle(state, options)
        return (yield from steps.prompt(state, step, wanted, options))


def wanted_frame(formats: Formats, low_res_masks: bool) -> WantedFrame:
    """The parts of an answer to ask for."""
    return WantedFrame(check_formats(formats), bool(low_res_masks))


def _number(account: dict[str, Any]) -> int | None:
    count = account.get("num_frames", account.get("options", {}).get("num_frames"))
    return None if count is None else int(count)


def _video_bytes(video: VideoSource) -> bytes:
    if isinstance(video, str | os.PathLike):
        if Path(os.fspath(video)).expanduser().is_dir():
            raise InvalidInputError("upload: expected a video file, got a folder")
        try:
            return image_file_bytes(video)
        except InvalidInputError as error:
            raise InvalidInputError(str(error).replace("image:", "video:", 1)) from error
    if isinstance(video, bytes | bytearray | memoryview):
        return bytes(video)
    raise InvalidInputError(
        f"upload: expected a video file's path or bytes, got {type(video).__name__}"
    )


def _checked_session(session_id: str) -> str:
    if not isinstance(session_id, str) or not session_id:
        raise InvalidInputError(f"session_id: expected a name, got {session_id!r}")
    return session_id


def _checked_options(options: dict[str, Any]) -> dict[str, bool | int]:
    """Those that were given, of the types that the server wants; it checks their values."""
    given = {name: value for name, value in options.items() if value is not None}
    for name, value in given.items():
        wants = int if name in ("max_cond_frames_in_attn", "fill_hole_area") else bool
        if type(value) is not wants:
            raise InvalidInputError(
                f"{name}: expected {'a whole number' if wants is int else 'true or false'}, got {value!r}"
            )
        if wants is int and not -(2**31) <= value < 2**31:
            raise InvalidInputError(f"{name}: expected a number of 32 bits, got {value}")
    return given
