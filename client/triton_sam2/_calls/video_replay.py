"""What became of steps that nobody heard of; and all that was done, done again."""

from collections.abc import Mapping
from typing import Any

from triton_sam2._calls import video_steps as steps
from triton_sam2._calls.flows import CallOptions, send
from triton_sam2._calls.video_requests import SCORES_ALONE, video_request
from triton_sam2._calls.video_state import ClearStep, PromptStep, RemoveStep, TrackRun, VideoState
from triton_sam2._errors import InvalidInputError
from triton_sam2._transports.rpc import Deadline, Flow


def settle(state: VideoState, options: CallOptions) -> Flow[None]:
    """Find out, or make certain, what became of steps that nobody heard of."""
    if state.must_replay:
        _check_past(state)
        request = video_request(state, "reset", ("session_bytes",))
        yield from send(request, options, Deadline(options.timeout_s))
        yield from play(state, options)
        return
    if not state.unsettled:
        return
    # Steps of a session go in order: this is answered when the others are over.
    account = yield from steps.describe(state, options)
    for frame_idx, reverse in list(state.unsettled.items()):
        if state.was_tracked(frame_idx):
            # Once more or not, nobody can say; so once more in any case.
            yield from steps.track(state, frame_idx, reverse, SCORES_ALONE, options)
        elif is_tracked(account, frame_idx, reverse):
            state.note_tracked(frame_idx, reverse)
        state.unsettled.pop(frame_idx, None)


def replay(state: VideoState, options: CallOptions) -> Flow[None]:
    """Begin the session anew and do all that was done."""
    _check_repeatable(state)
    yield from steps.close(state, options)
    state.sent.clear()
    state.must_replay = True  # until all is done
    yield from steps.start(state, options)
    yield from play(state, options)


def play(state: VideoState, options: CallOptions) -> Flow[None]:
    """Do all that was done, in a session in which nothing was."""
    journal, state.journal = state.journal, []
    state.unsettled.clear()
    state.changes += 1
    done = 0
    try:
        for step in journal:
            yield from _again(state, step, options)
            done += 1
    finally:
        if done < len(journal):
            state.journal, state.must_replay = journal, True
            state.unsettled.clear()
    state.must_replay = False


def is_tracked(account: Mapping[str, Any], frame_idx: int, reverse: bool) -> bool:
    """Whether a frame was tracked in a direction, by the server's account."""
    name = "tracked_backward" if reverse else "tracked_forward"
    runs = [run for one in account["objects"].values() for run in one[name]]
    return any(first <= frame_idx <= last for first, last in runs)


def _again(
    state: VideoState, step: PromptStep | ClearStep | RemoveStep | TrackRun, options: CallOptions
) -> Flow[None]:
    match step:
        case PromptStep():
            yield from steps.prompt(state, step, SCORES_ALONE, options)
        case ClearStep():
            yield from steps.clear(state, step, SCORES_ALONE, options)
        case RemoveStep():
            yield from steps.remove(state, step, options)
        case TrackRun():
            for frame_idx in step.frames():
                yield from steps.track(state, frame_idx, step.reverse, SCORES_ALONE, options)


def _check_past(state: VideoState) -> None:
    if state.has_past:
        raise InvalidInputError(
            "inference_state: the session was begun elsewhere, so what was done in it is not known here;"
            " reset it or begin a new one"
        )


def _check_repeatable(state: VideoState) -> None:
    _check_past(state)
    if not state.source.is_repeatable and state.journal:
        raise InvalidInputError(
            "inference_state: its frames came from an iterator and are gone, so the session cannot be"
            " replayed; begin a new one"
        )
