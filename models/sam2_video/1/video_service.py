"""Carries out the steps of all sessions: in order of arrival within a session, sessions side by side.

Runs on one asyncio event loop and never imports Triton; how graphs run and frames are encoded is handed in.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from fair_turns import FairTurns
from open_video import OpenVideo
from session_state import SessionState
from session_steps import (
    EncodedFrame,
    FrameSource,
    SessionSteps,
    StepAnswer,
    StepLimits,
    VideoFrame,
)
from session_table import SessionTable, VideoSession
from tenant_shares import ShareFullError, TenantShares
from tracking import TrackingOptions
from video_commands import Command
from video_errors import (
    CancelledStepError,
    InvalidStepError,
    NotHeldError,
    OverloadedError,
)
from video_graphs import AttentionRange, RetiredWeightsError, RunGraph, Tensors, VideoGraphs
from video_settings import ServiceLimits

IsCancelled = Callable[[], bool]
EncodeFrame = Callable[[FrameSource, IsCancelled], Awaitable[EncodedFrame]]
OpenVideoFile = Callable[[bytes, IsCancelled], Awaitable[OpenVideo]]
Shown = TypeVar("Shown")


@dataclass
class ServiceCounts:
    """Refusals so far for want of room, and objects in steps that computed masks."""

    overloaded: int = 0
    encoded_ahead: int = 0
    objects: Counter[int] = field(default_factory=Counter)


@dataclass
class _Lane:
    """The steps of one session id, in order of arrival."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    steps: int = 0


@dataclass(frozen=True)
class Step(Generic[Shown]):
    """A command, whether its client still waits, and how its answer is shown. What `show` makes is what the
    step returns; it comes before the commit, so that an answer which cannot be made changes nothing."""

    command: Command
    is_cancelled: IsCancelled
    show: Callable[[Command, StepAnswer, SessionState, VideoSession], Awaitable[Shown]]


class VideoService:
    """Order within sessions, fairness between them, and nothing left behind by a step that fails.

    Each session has at most one step among those that run or wait for one of the places to run, and these
    go in order: so a session that asks for much waits behind the others after every step. Tenants have their
    turns one after another, however many sessions each of them has.
    """

    def __init__(
        self,
        table: SessionTable,
        run_graph: RunGraph,
        encode_frame: EncodeFrame,
        limits: ServiceLimits,
        step_limits: StepLimits,
        *,
        open_video: OpenVideoFile,
        attention: AttentionRange | None = None,
        observe_step: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._table = table
        self._run_graph = run_graph
        self._encode_frame = encode_frame
        self._open_video = open_video
        self._attention = attention
        self._limits = limits
        self._step_limits = step_limits
        self._observe_step = observe_step
        most, percent = limits.max_concurrent_steps, limits.tenant_percent
        self._places = FairTurns(most, max(1, most * percent // 100))
        self._lanes: dict[tuple[str, str], _Lane] = {}
        limit = f"max_pending_bytes {limits.max_pending_bytes}"
        self._pending_bytes = TenantShares(limit, limits.max_pending_bytes, percent)
        self.counts = ServiceCounts()

    @property
    def pending_steps(self) -> int:
        return sum(lane.steps for lane in self._lanes.values())

    async def run(self, step: Step[Shown]) -> Shown:
        """Carries out a step when its turn has come.

        Raises:
            StepRefusedError: why it did not happen; the session is as it was.
        """
        command = step.command
        key = command.tenant, command.session_id
        lane = self._lanes.get(key) or _Lane()
        self._take_room(lane, command)
        self._lanes[key] = lane
        lane.steps += 1
        ahead = self._encode_ahead(step) if lane.steps == 2 else None
        session = self._table.peek(command.session_id, command.tenant)
        if session is not None:
            session.steps += 1
        try:
            async with lane.turn, self._places.turn(command.tenant):
                return await self._carry_out(step, ahead)
        finally:
            if session is not None:
                session.steps -= 1
            if ahead is not None:
                ahead.cancel()
            self._pending_bytes.give_back(command.tenant, command.size_bytes)
            lane.steps -= 1
            if not lane.steps:
                del self._lanes[key]

    def _take_room(self, lane: _Lane, command: Command) -> None:
        limits = self._limits
        if lane.steps >= limits.max_pending_steps:
            self.counts.overloaded += 1
            raise OverloadedError(
                f"session_id: {lane.steps} steps of this session wait already (max_pending_steps"
                f" {limits.max_pending_steps}); wait for an answer before the next request"
            )
        try:
            self._pending_bytes.take(command.tenant, command.size_bytes)
        except ShareFullError as error:
            self.counts.overloaded += 1
            raise OverloadedError(
                f"{'image' if command.video is None else 'video'}: as many bytes of requests wait already as"
                f" may ({error}); try again in a moment"
            ) from error

    def _encode_ahead(self, step: Step[Shown]) -> asyncio.Task[EncodedFrame] | None:
        """Encodes the frame of the step that comes next while the one before it is still being tracked."""
        command = step.command
        session = self._table.peek(command.session_id, command.tenant)
        source = None if session is None else _source_of(command, session)
        if source is None:
            return None
        self.counts.encoded_ahead += 1
        encoding = self._encode_frame(source, step.is_cancelled)
        task = asyncio.ensure_future(encoding)
        # The step may end without having looked at it.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task

    async def _carry_out(
        self, step: Step[Shown], ahead: asyncio.Task[EncodedFrame] | None
    ) -> Shown:
        command = step.command
        if step.is_cancelled():
            raise CancelledStepError("the client cancelled this request")
        if command.name == "start":
            return await self._start(step)
        session = self._table.find(command.session_id, command.tenant)
        if command.name == "close":
            self._table.close(session)
            return await step.show(command, StepAnswer(), SessionState(), session)
        started = time.perf_counter()
        draft = session.state.draft()
        try:
            answer = await self._steps_of(session, step, ahead).run(command, draft)
        except RetiredWeightsError as error:
            self._table.retire(session)
            raise NotHeldError(
                "session_id: the model was reloaded with other weights, which ended this session; start it"
                " again"
            ) from error
        shown = await step.show(command, answer, draft, session)
        if step.is_cancelled():
            raise CancelledStepError("the client cancelled this request")
        self._table.commit(session, draft)
        self.counts.objects[len(answer.outputs)] += answer.frame_index >= 0
        self._observe_step(time.perf_counter() - started)
        return shown

    async def _start(self, step: Step[Shown]) -> Shown:
        """A new session, with all that it is started with or not at all."""
        command, options, state = step.command, step.command.options, SessionState()
        self._table.check_place(command.session_id, command.tenant)
        if command.video is not None:
            video = await self._open_video(command.video, step.is_cancelled)
            state = SessionState(video=video, original_hw=video.original_hw)
        session = None
        try:
            options = _with_length(options, state.video)
            session = self._table.start(command.session_id, options, command.tenant)
            self._table.commit(session, state)
            shown = await step.show(command, StepAnswer(), state, session)
            if step.is_cancelled():
                raise CancelledStepError("the client cancelled this request")
            return shown
        except BaseException:
            if session is not None:
                session.state = state
                self._table.close(session)
            elif state.video is not None:
                self._table.close_video(state.video)
            raise

    def _steps_of(
        self, session: VideoSession, step: Step[Shown], ahead: asyncio.Task[EncodedFrame] | None
    ) -> SessionSteps:
        """The session's commands, over graphs that are not called once nobody waits."""

        async def run_graph(graph: str, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
            if step.is_cancelled():
                raise CancelledStepError("the client cancelled this request")
            return await self._run_graph(graph, inputs, outputs)

        async def encode_frame(source: FrameSource) -> EncodedFrame:
            if ahead is not None and source == _source_of(step.command, session):
                return await ahead
            return await self._encode_frame(source, step.is_cancelled)

        graphs = VideoGraphs(run_graph, self._attention)
        return SessionSteps(graphs, encode_frame, session.options, self._step_limits)


def _source_of(command: Command, session: VideoSession) -> FrameSource | None:
    """What a step's frame would be encoded from; None where it need not be, or cannot."""
    frame, state = command.frame_index, session.state
    if frame in state.features or frame < 0:
        return None
    if state.video is None:
        return command.image
    is_looked_at = command.name in ("prompt", "track")
    return (
        VideoFrame(state.video, frame) if is_looked_at and frame < state.video.num_frames else None
    )


def _with_length(options: TrackingOptions, video: OpenVideo | None) -> TrackingOptions:
    """The options of a session, whose video says how many frames there are."""
    if video is None:
        return options
    if options.num_frames is not None and options.num_frames > video.num_frames:
        raise InvalidStepError(
            f"num_frames: expected at most the video's {video.num_frames}, or no tensor for all of them, got"
            f" {options.num_frames}"
        )
    return replace(options, num_frames=options.num_frames or video.num_frames)
