"""Requests of a video session: which tensors, with or without the frame's image, and what is tried again."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from triton_sam2._calls.flows import CallOptions, send
from triton_sam2._calls.video_state import VideoState
from triton_sam2._errors import (
    AccessDeniedError,
    ImageNotFoundError,
    InvalidInputError,
    ModelNotFoundError,
    ServerUnavailableError,
    ServerUnreachableError,
    SessionNotFoundError,
    TritonSam2Error,
)
from triton_sam2._results.segmentation import FORMAT_OUTPUTS, MaskFormat
from triton_sam2._results.tracked import FRAME_FACTS
from triton_sam2._transports.rpc import Deadline, Flow, InferRequest, Tensors, Work, bytes_tensor

VIDEO_MODEL = "sam2_video"
# Errors that say that nothing was changed.
_NOTHING_HAPPENED = (
    InvalidInputError,
    ImageNotFoundError,
    SessionNotFoundError,
    AccessDeniedError,
    ModelNotFoundError,
    ServerUnreachableError,
)
# How our server and what stands before it say that they did not take a request on. Without such words an
# UNAVAILABLE may be a connection that broke after the request had arrived.
_REFUSAL = re.compile(
    r"\(max_\w+|\(memory_budget_bytes|server is stopping|shared memory|not at ready state"
    r"|has no available versions|too many requests",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class WantedFrame:
    """Which parts of an answer the caller will look at; nothing else is computed or transferred."""

    formats: tuple[MaskFormat, ...] = ("bitmap",)
    low_res_masks: bool = False

    def inputs(self) -> dict[str, Any]:
        """The optional input that says so to the server; the default is left out."""
        return {} if self.formats == ("bitmap",) else {"mask_format": bytes_tensor(*self.formats)}

    def outputs(self) -> tuple[str, ...]:
        """The outputs to request."""
        low_res = ("low_res_masks",) if self.low_res_masks else ()
        return (*(FORMAT_OUTPUTS[each] for each in self.formats), *low_res, *FRAME_FACTS)


SCORES_ALONE = WantedFrame(formats=())


def video_request(
    state: VideoState,
    command: str,
    outputs: tuple[str, ...],
    inputs: Mapping[str, Any] | None = None,
    timeout_s: float = 60.0,
) -> InferRequest:
    """A request of a session, for any command."""
    names = {
        "session_id": bytes_tensor(state.session_id),
        "command": bytes_tensor(command),
    }
    return InferRequest(
        VIDEO_MODEL,
        {**names, **(inputs or {})},
        outputs,
        timeout_s=timeout_s,
        headers=state.headers,
    )


def send_step(
    state: VideoState,
    command: str,
    frame_idx: int | None,
    tensors: Mapping[str, Any],
    *,
    wanted: WantedFrame | None,
    options: CallOptions,
    is_safe: Callable[[ServerUnavailableError], bool],
) -> Flow[Tensors]:
    """Send a step; with its frame's image where the server does not hold it (any more)."""
    deadline = Deadline(options.timeout_s)
    inputs = {**tensors, **({} if wanted is None else wanted.inputs())}
    outputs = ("object_ids", "session_bytes") if wanted is None else wanted.outputs()
    if frame_idx is not None:
        inputs["frame_index"] = frame_tensor(frame_idx)
    request = video_request(state, command, outputs, inputs)
    if frame_idx is None or state.server_has_frames:
        return (yield from send(request, options, deadline, is_safe))
    if frame_idx in state.sent:
        try:
            return (yield from send(request, options, deadline, is_safe))
        except ImageNotFoundError:
            del state.sent[frame_idx]
    image = yield from _load(state, frame_idx)
    if image is None:
        raise InvalidInputError(f"frame_idx: the video ends before frame {frame_idx}")
    request = video_request(state, command, outputs, {**inputs, "image": bytes_tensor(image)})
    answer = yield from send(request, options, deadline, is_safe)
    state.note_sent(frame_idx)
    return answer


def _load(state: VideoState, frame_idx: int) -> Flow[bytes | None]:
    loaded: list[bytes | None] = []
    yield Work(lambda: loaded.append(state.source.read(frame_idx)))
    return loaded[0]


def track_request(
    state: VideoState, frame_idx: int, reverse: bool, wanted: WantedFrame, options: CallOptions
) -> Flow[InferRequest | None]:
    """The request to track one frame, with the image unless the server holds it; None behind the last."""
    tensors: dict[str, Any] = {"reverse": np.array([True])} if reverse else {}
    if frame_idx not in state.sent and not state.server_has_frames:
        image = yield from _load(state, frame_idx)
        if image is None:
            return None
        tensors["image"] = bytes_tensor(image)
    inputs = {"frame_index": frame_tensor(frame_idx), **tensors, **wanted.inputs()}
    return video_request(state, "track", wanted.outputs(), inputs, options.timeout_s)


def nothing_happened(error: TritonSam2Error) -> bool:
    """Whether an error says that the server is as it was."""
    return isinstance(error, _NOTHING_HAPPENED) or is_refusal(error)


def is_refusal(error: TritonSam2Error) -> bool:
    """Whether an error says that the request was not taken on."""
    return isinstance(error, ServerUnavailableError) and bool(_REFUSAL.search(str(error)))


def is_refusal_or_unreachable(error: ServerUnavailableError) -> bool:
    """Whether a request surely did not arrive."""
    return isinstance(error, ServerUnreachableError) or is_refusal(error)


def frame_tensor(frame_idx: int) -> Any:
    """A frame's number, as the server takes it."""
    return np.array([frame_idx], np.int32)
