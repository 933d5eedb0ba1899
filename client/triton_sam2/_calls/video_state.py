"""What a client knows of a video session: where frames come from, and what was done, to do it again."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, TypeAlias

from triton_sam2._inputs.frames import FrameSource
from triton_sam2._inputs.prompts import Prompts

# Frames that the server is taken to hold; it forgets the oldest, and says so when it is asked for one.
_MOST_SENT = 4096
SESSION_HEADER = "x-sam2-session"


@dataclass(frozen=True)
class PromptStep:
    """A prompt on a frame."""

    frame_idx: int
    tensors: Prompts


@dataclass(frozen=True)
class ClearStep:
    """An object's prompts on a frame, taken back."""

    frame_idx: int
    obj_id: int


@dataclass(frozen=True)
class RemoveStep:
    """An object, removed."""

    obj_id: int


@dataclass
class TrackRun:
    """Frames tracked one after another, in one direction."""

    first: int
    last: int
    reverse: bool

    def frames(self) -> Iterator[int]:
        """Their numbers, in order."""
        step = -1 if self.reverse else 1
        return iter(range(self.first, self.last + step, step))

    def __contains__(self, frame_idx: int) -> bool:
        return min(self.first, self.last) <= frame_idx <= max(self.first, self.last)


JournalStep: TypeAlias = PromptStep | ClearStep | RemoveStep | TrackRun


@dataclass(eq=False)
class VideoState:
    """A video session on a server, what Meta's predictor calls an inference state.

    One thread or task at a time uses it; sessions of their own run side by side.
    """

    source: FrameSource = field(repr=False)
    options: Mapping[str, Any]
    session_id: str
    num_frames: int | None = None
    """None for a live stream."""
    original_hw: tuple[int, int] | None = None
    """Height and width of the upright frames, once one was answered."""
    object_ids: list[int] = field(default_factory=list)
    """In order of their creation."""
    upload: bytes | None = field(default=None, repr=False)
    """The video file, where the server is to have it as a whole."""
    server_has_frames: bool = False
    """Whether no image has to be sent, as the server has the video."""
    has_past: bool = False
    """Whether somebody else began it, so that it cannot be replayed."""

    journal: list[JournalStep] = field(default_factory=list, repr=False)
    sent: dict[int, None] = field(default_factory=dict, repr=False)
    """Frames that the server holds, the oldest first."""
    unsettled: dict[int, bool] = field(default_factory=dict, repr=False)
    """Frames whose tracking was asked for and not heard of, and in which direction (reverse)."""
    must_replay: bool = field(default=False, repr=False)
    """Whether a prompt was sent and not heard of."""
    changes: int = field(default=0, repr=False)
    """Steps other than tracking so far."""
    last_shown: dict[bool, int] = field(default_factory=dict, repr=False)
    """The frame that was handed over last, in each direction (reverse)."""

    @property
    def headers(self) -> dict[str, str]:
        """What a gateway routes by: the same for all requests of a session, and not the id itself."""
        return {SESSION_HEADER: sha256(self.session_id.encode()).hexdigest()[:16]}

    def note_sent(self, frame_idx: int) -> None:
        """The server holds a frame now."""
        self.sent[frame_idx] = None
        if len(self.sent) > _MOST_SENT:
            del self.sent[next(iter(self.sent))]

    def note_tracked(self, frame_idx: int, reverse: bool) -> None:
        """A frame was tracked."""
        last = self.journal[-1] if self.journal else None
        following = frame_idx + (1 if reverse else -1)
        if isinstance(last, TrackRun) and last.reverse == reverse:
            if last.last == frame_idx:
                return
            if last.last == following:
                last.last = frame_idx
                return
        self.journal.append(TrackRun(frame_idx, frame_idx, reverse))

    def was_tracked(self, frame_idx: int) -> bool:
        """Whether a frame was tracked, in whichever direction."""
        return any(isinstance(step, TrackRun) and frame_idx in step for step in self.journal)

    def note_objects(self, object_ids: list[int]) -> None:
        """The objects that there are now; without any, nothing is left of what was done."""
        self.object_ids = object_ids
        if not object_ids:
            self.journal.clear()
            self.last_shown.clear()
