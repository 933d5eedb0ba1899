"""Single steps of a video session: each is one request, and either happened or did not.

A prompt must not be sent twice: the second one would be decoded over the answer to the first. So where it is
not known whether it took effect, the next call begins with all that is known, done anew (video_replay.py).
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from triton_sam2._calls.flows import CallOptions, send
from triton_sam2._calls.video_requests import (
    WantedFrame,
    frame_tensor,
    is_refusal_or_unreachable,
    nothing_happened,
    send_step,
    video_request,
)
from triton_sam2._calls.video_state import ClearStep, PromptStep, RemoveStep, VideoState
from triton_sam2._errors import (
    ServerError,
    ServerUnavailableError,
    SessionExistsError,
    SessionNotFoundError,
    TritonSam2Error,
)
from triton_sam2._inputs.video_prompts import object_tensor
from triton_sam2._results.tracked import TrackedFrame
from triton_sam2._transports.rpc import Deadline, Flow, Tensors, bytes_tensor


def start(state: VideoState, options: CallOptions) -> Flow[None]:
    """Begin the session on the server."""
    inputs = {name: _option(value) for name, value in state.options.items()}
    if state.upload is not None:
        inputs["video"] = bytes_tensor(state.upload)
    elif state.num_frames is not None:
        inputs["num_frames"] = np.array([state.num_frames], np.int32)
    tried_before = False

    def note(_: ServerUnavailableError) -> bool:
        nonlocal tried_before
        tried_before = True
        return True

    request = video_request(state, "start", ("session_bytes",), inputs)
    try:
        yield from send(request, options, Deadline(options.timeout_s), note)
    except SessionExistsError:
        if not tried_before:  # else it was our own first try that began it
            raise


def describe(state: VideoState, options: CallOptions) -> Flow[dict[str, Any]]:
    """The server's own account of the session."""
    request = video_request(state, "status", ("status", "object_ids", "original_hw"))
    answer = yield from send(request, options, Deadline(options.timeout_s))
    state.object_ids = answer["object_ids"].tolist()
    _note_size(state, answer)
    try:
        account: dict[str, Any] = json.loads(answer["status"][0])
    except (ValueError, IndexError) as error:
        raise ServerError("status: expected JSON in the server's answer") from error
    return account


def prompt(
    state: VideoState, step: PromptStep, wanted: WantedFrame, options: CallOptions
) -> Flow[TrackedFrame]:
    """A prompt on a frame."""
    answer = yield from _change(
        state, "prompt", step.frame_idx, step.tensors, wanted=wanted, options=options
    )
    state.journal.append(step)
    return _shown(state, answer)


def clear(
    state: VideoState, step: ClearStep, wanted: WantedFrame, options: CallOptions
) -> Flow[TrackedFrame]:
    """Take an object's prompts on a frame back."""
    tensors = {"object_id": object_tensor(step.obj_id), "frame_index": frame_tensor(step.frame_idx)}
    answer = yield from _change(
        state, "clear_prompts", None, tensors, wanted=wanted, options=options
    )
    state.journal.append(step)
    return _shown(state, answer)


def remove(state: VideoState, step: RemoveStep, options: CallOptions) -> Flow[list[int]]:
    """Remove an object; those that are left."""
    tensors = {"object_id": object_tensor(step.obj_id)}
    answer = yield from _change(state, "remove_object", None, tensors, wanted=None, options=options)
    state.journal.append(step)
    state.note_objects(answer["object_ids"].tolist())
    return state.object_ids


def reset(state: VideoState, options: CallOptions) -> Flow[None]:
    """Forget all objects."""
    yield from _change(
        state, "reset", None, {}, wanted=None, options=options, is_safe=lambda _: True
    )
    state.note_objects([])


def close(state: VideoState, options: CallOptions) -> Flow[None]:
    """End the session, if the server still holds it."""
    request = video_request(state, "close", ("session_bytes",))
    try:
        yield from send(request, options, Deadline(options.timeout_s))
    except SessionNotFoundError:
        return


def track(
    state: VideoState, frame_idx: int, reverse: bool, wanted: WantedFrame, options: CallOptions
) -> Flow[TrackedFrame]:
    """Track one frame. To do it again changes nothing, as it only looks at frames before it."""
    state.unsettled[frame_idx] = reverse
    tensors = {"reverse": np.array([True])} if reverse else {}
    try:
        answer = yield from send_step(
            state,
            "track",
            frame_idx,
            tensors,
            wanted=wanted,
            options=options,
            is_safe=lambda _: True,
        )
    except TritonSam2Error as error:
        if nothing_happened(error):
            del state.unsettled[frame_idx]
        raise
    return note_answer(state, frame_idx, reverse, answer)


def note_answer(state: VideoState, frame_idx: int, reverse: bool, answer: Tensors) -> TrackedFrame:
    """A frame was tracked: what is known by that."""
    shown = _shown(state, answer)
    if shown.frame_idx != frame_idx:
        raise ServerError(
            f"frame_index: expected the answer about frame {frame_idx}, got one about {shown.frame_idx}"
        )
    state.unsettled.pop(frame_idx, None)
    state.note_sent(frame_idx)
    state.note_tracked(frame_idx, reverse)
    return shown


def _change(
    state: VideoState,
    command: str,
    frame_idx: int | None,
    tensors: Mapping[str, Any],
    *,
    wanted: WantedFrame | None,
    options: CallOptions,
    is_safe: Callable[[ServerUnavailableError], bool] = is_refusal_or_unreachable,
) -> Flow[Tensors]:
    """A step that has to happen once."""
    replaying, state.must_replay = state.must_replay, True
    try:
        answer = yield from send_step(
            state,
            command,
            frame_idx,
            tensors,
            wanted=wanted,
            options=options,
            is_safe=is_safe,
        )
    except TritonSam2Error as error:
        if nothing_happened(error):
            state.must_replay = replaying
        raise
    state.must_replay = replaying
    state.changes += 1
    return answer


def _shown(state: VideoState, answer: Tensors) -> TrackedFrame:
    shown = TrackedFrame.from_tensors(answer)
    state.object_ids = shown.object_ids
    _note_size(state, answer)
    return shown


def _note_size(state: VideoState, answer: Tensors) -> None:
    height, width = (int(side) for side in answer["original_hw"])
    if height and width:
        state.original_hw = (height, width)


def _option(value: bool | int) -> Any:
    return np.array([value], np.bool_ if isinstance(value, bool) else np.int32)
