"""All sessions, what they hold, and who goes first where it becomes too much.

Pure bookkeeping for one thread: no Triton, no clock of its own, no I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from open_video import OpenVideo
from session_state import SessionState
from tenant_shares import NO_TENANT
from tracking import TrackingOptions
from video_errors import NotHeldError, OverloadedError, SessionExistsError


@dataclass(frozen=True)
class TableLimits:
    """See config.pbtxt, which declares them."""

    max_sessions: int
    tenant_percent: int
    session_idle_seconds: int
    memory_budget_bytes: int
    memory_window_frames: int
    memory_history_frames: int
    pointer_window_frames: int


@dataclass
class TableCounts:
    """What left sessions so far: memories that a full history pushed out or the budget took, frames' files
    and whole sessions that the budget took, sessions that expired or whose weights were replaced."""

    aged_memories: int = 0
    evicted_memories: int = 0
    evicted_files: int = 0
    evicted_sessions: int = 0
    expired_sessions: int = 0
    retired_sessions: int = 0


@dataclass
class VideoSession:
    """One session: `steps` counts those that wait or run, which keep it from being evicted."""

    session_id: str
    options: TrackingOptions
    last_used: float
    tenant: str = NO_TENANT
    state: SessionState = field(default_factory=SessionState)
    steps: int = 0
    size_bytes: int = 0


class SessionTable:
    """Sessions by tenant and id, the longest unused first."""

    def __init__(
        self,
        limits: TableLimits,
        now: Callable[[], float],
        close_video: Callable[[OpenVideo], None] = lambda video: video.dispose(),
    ) -> None:
        self._limits = limits
        self.close_video = close_video
        self._now = now
        self._sessions: dict[tuple[str, str], VideoSession] = {}
        self.counts = TableCounts()

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[VideoSession]:
        return iter(self._sessions.values())

    @property
    def size_bytes(self) -> int:
        return sum(session.size_bytes for session in self)

    def start(
        self, session_id: str, options: TrackingOptions, tenant: str = NO_TENANT
    ) -> VideoSession:
        """A new session.

        Raises:
            SessionExistsError: the id is taken.
            OverloadedError: there are as many sessions as there may be.
        """
        self.check_place(session_id, tenant)
        session = VideoSession(session_id, options, self._now(), tenant)
        self._sessions[tenant, session_id] = session
        return session

    def check_place(self, session_id: str, tenant: str = NO_TENANT) -> None:
        """Whether a session of this id could start now; raises as `start` does."""
        self.expire()
        if (tenant, session_id) in self._sessions:
            raise SessionExistsError(
                f"session_id: expected one that no session has, got {quoted(session_id)}; close that session"
                " first, or reset it"
            )
        self._check_number(tenant)

    def find(self, session_id: str, tenant: str = NO_TENANT) -> VideoSession:
        """A living session.

        Raises:
            NotHeldError: there is none of this id.
        """
        session = self.peek(session_id, tenant)
        if session is None:
            raise NotHeldError(
                f"session_id: expected a session that was started, got {quoted(session_id)}; start it again."
                f" Sessions end after {self._limits.session_idle_seconds} idle seconds"
                " (session_idle_seconds), for want of memory, when the server restarts and when the model's"
                " weights change"
            )
        return session

    def peek(self, session_id: str, tenant: str = NO_TENANT) -> VideoSession | None:
        """A living session, or None."""
        session = self._sessions.get((tenant, session_id))
        if session is not None and self._is_idle(session):
            self._expire(session)
            return None
        return session

    def close(self, session: VideoSession) -> None:
        self._sessions.pop((session.tenant, session.session_id), None)
        if session.state.video is not None:
            self.close_video(session.state.video)

    def retire(self, session: VideoSession) -> None:
        """Ends a session whose weights were replaced."""
        self.close(session)
        self.counts.retired_sessions += 1

    def expire(self) -> None:
        """Ends every session that nobody used within the idle time."""
        for session in [session for session in self if self._is_idle(session)]:
            self._expire(session)

    def commit(self, session: VideoSession, draft: SessionState) -> None:
        """Has a step's draft replace the session's state, within the budget.

        Raises:
            OverloadedError: it does not fit, whatever idle sessions give up; the state stays as it was.
        """
        limits = self._limits
        for memory in draft.objects.values():
            self.counts.aged_memories += memory.evict(
                limits.memory_history_frames, limits.pointer_window_frames
            )
        size_bytes = self._make_room(session, draft)
        session.state, session.size_bytes = draft, size_bytes
        self.touch(session)

    def touch(self, session: VideoSession) -> None:
        """Makes the session the one used last."""
        session.last_used = self._now()
        key = session.tenant, session.session_id
        if self._sessions.pop(key, None) is not None:
            self._sessions[key] = session

    def _make_room(self, session: VideoSession, draft: SessionState) -> int:
        """Drops memories beyond the window, then files, then sessions, until all fit; the draft's bytes."""
        budget = self._limits.memory_budget_bytes
        size_bytes = draft.size_bytes
        others = self.size_bytes - session.size_bytes
        if others + size_bytes <= budget:
            return size_bytes
        idle = [other for other in self if other is not session and not other.steps]
        for take in (self._drop_memories, self._drop_files):
            for other in idle:
                if not self._gives_way(other, session):
                    continue
                take(other.state)
                self._measure(other)
                others = self.size_bytes - session.size_bytes
                if others + size_bytes <= budget:
                    return size_bytes
            take(draft)
            size_bytes = draft.size_bytes
            if others + size_bytes <= budget:
                return size_bytes
        for other in idle:
            if not self._gives_way(other, session):
                continue
            self.close(other)
            self.counts.evicted_sessions += 1
            if self.size_bytes - session.size_bytes + size_bytes <= budget:
                return size_bytes
        raise OverloadedError(
            f"session_id: this step would make all sessions hold more than {budget} bytes"
            " (memory_budget_bytes); track fewer objects, or try again when others have ended"
        )

    def _check_number(self, tenant: str) -> None:
        most = self._limits.max_sessions
        if len(self) >= most:
            raise OverloadedError(
                f"session_id: as many sessions are open as may be (max_sessions {most}); close one, or try"
                " again later"
            )
        own = max(1, most * self._limits.tenant_percent // 100)
        if tenant != NO_TENANT and sum(session.tenant == tenant for session in self) >= own:
            raise OverloadedError(
                f"session_id: {own} sessions are open already (max_sessions {most}, of which a tenant has"
                f" {own}); close one"
            )

    def _gives_way(self, other: VideoSession, session: VideoSession) -> bool:
        """Whether one session may lose something to another: not within the even share of its tenant."""
        if other.tenant == session.tenant:
            return True
        tenants = {one.tenant for one in self} | {session.tenant}
        held = sum(one.size_bytes for one in self if one.tenant == other.tenant)
        return held > self._limits.memory_budget_bytes / len(tenants)

    def _drop_memories(self, state: SessionState) -> None:
        limits = self._limits
        for memory in state.objects.values():
            self.counts.evicted_memories += memory.evict(
                limits.memory_window_frames, limits.pointer_window_frames
            )

    def _drop_files(self, state: SessionState) -> None:
        self.counts.evicted_files += len(state.files)
        state.files.clear()
        state.files_bytes = 0

    def _measure(self, session: VideoSession) -> None:
        session.size_bytes = session.state.size_bytes

    def _is_idle(self, session: VideoSession) -> bool:
        idle_seconds = self._now() - session.last_used
        return not session.steps and idle_seconds > self._limits.session_idle_seconds

    def _expire(self, session: VideoSession) -> None:
        self.close(session)
        self.counts.expired_sessions += 1


def quoted(session_id: str) -> str:
    """An id as messages show it."""
    return repr(session_id if len(session_id) <= 80 else session_id[:77] + "...")
