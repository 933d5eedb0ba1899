"""Carries out the steps of all sessions: in order of arrival within a session, sessions side by side.

Runs on one asyncio event loop and never imports Triton; how graphs run and frames are encoded is handed in.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from session_state import SessionState
from session_steps import EncodedFrame, SessionSteps, StepAnswer, StepLimits
from session_table import SessionTable, VideoSession
from video_commands import Command
from video_errors import CancelledStepError, NotHeldError, OverloadedError
from video_graphs import RetiredWeightsError, RunGraph, Tensors, VideoGraphs
from video_settings import ServiceLimits

IsCancelled = Callable[[], bool]
EncodeFrame = Callable[[bytes, IsCancelled], Awaitable[EncodedFrame]]
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
    go in order: so a session that asks for much waits behind the others after every step.
    """

    def __init__(
        self,
        table: SessionTable,
        run_graph: RunGraph,
        encode_frame: EncodeFrame,
        limits: ServiceLimits,
        step_limits: StepLimits,
        *,
        observe_step: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._table = table
        self._run_graph = run_graph
        self._encode_frame = encode_frame
        self._limits = limits
        self._step_limits = step_limits
        self._observe_step = observe_step
        self._places = asyncio.Semaphore(limits.max_concurrent_steps)
        self._lanes: dict[str, _Lane] = {}
        self._pending_bytes = 0
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
        lane = self._lanes.get(command.session_id) or _Lane()
        self._check_room(lane, command)
        self._lanes[command.session_id] = lane
        lane.steps += 1
        self._pending_bytes += command.size_bytes
        ahead = self._encode_ahead(step) if lane.steps == 2 else None
        session = self._table.peek(command.session_id)
        if session is not None:
            session.steps += 1
        try:
            async with lane.turn, self._places:
                return await self._carry_out(step, ahead)
        finally:
            if session is not None:
                session.steps -= 1
            if ahead is not None:
                ahead.cancel()
            self._pending_bytes -= command.size_bytes
            lane.steps -= 1
            if not lane.steps:
                del self._lanes[command.session_id]

    def _check_room(self, lane: _Lane, command: Command) -> None:
        limits = self._limits
        if lane.steps >= limits.max_pending_steps:
            self.counts.overloaded += 1
            raise OverloadedError(
                f"session_id: {lane.steps} steps of this session wait already (max_pending_steps"
                f" {limits.max_pending_steps}); wait for an answer before the next request"
            )
        if self._pending_bytes + command.size_bytes > limits.max_pending_bytes:
            self.counts.overloaded += 1
            raise OverloadedError(
                f"image: {self._pending_bytes} bytes of requests wait already (max_pending_bytes"
                f" {limits.max_pending_bytes}); try again in a moment"
            )

    def _encode_ahead(self, step: Step[Shown]) -> asyncio.Task[EncodedFrame] | None:
        """Encodes the frame of the step that comes next while the one before it is still being tracked."""
        command = step.command
        session = self._table.peek(command.session_id)
        if session is None or command.image is None:
            return None
        if command.frame_index in session.state.features:
            return None
        self.counts.encoded_ahead += 1
        encoding = self._encode_frame(command.image, step.is_cancelled)
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
            session = self._table.start(command.session_id, command.options)
            return await step.show(command, StepAnswer(), session.state, session)
        session = self._table.find(command.session_id)
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

    def _steps_of(
        self, session: VideoSession, step: Step[Shown], ahead: asyncio.Task[EncodedFrame] | None
    ) -> SessionSteps:
        """The session's commands, over graphs that are not called once nobody waits."""

        async def run_graph(graph: str, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
            if step.is_cancelled():
                raise CancelledStepError("the client cancelled this request")
            return await self._run_graph(graph, inputs, outputs)

        async def encode_frame(image: bytes) -> EncodedFrame:
            if ahead is not None and image == step.command.image:
                return await ahead
            return await self._encode_frame(image, step.is_cancelled)

        graphs = VideoGraphs(run_graph)
        return SessionSteps(graphs, encode_frame, session.options, self._step_limits)
