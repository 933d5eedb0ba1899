"""A tracking run: begin or take up the session, make the prompts, go through the frames."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triton_sam2._calls.video_state import VideoState
from triton_sam2._clients.video_blocking import SAM2VideoClient
from triton_sam2._errors import InvalidInputError, SessionNotFoundError
from triton_sam2._results.tracked import TrackedFrame
from triton_sam2.cli._track_prompts import FramePrompt, Prompts
from triton_sam2.cli._track_results import (
    Frames,
    Journal,
    Outputs,
    remaining,
    save_frame_masks,
)

FORWARD, BACKWARD, BOTH = DIRECTIONS = ("forward", "backward", "both")
# Sessions that are lost and replayed within one run, before something must be wrong.
MOST_REPLAYS = 3


@dataclass(frozen=True)
class RunOptions:
    """What to track, and how."""

    video: Path
    prompts: Prompts
    direction: str
    most: int | None
    upload: bool
    frame_format: str
    options: dict[str, Any]


class TrackingRun:
    """One run of `triton-sam2 track`."""

    def __init__(
        self, client: SAM2VideoClient, wanted: RunOptions, outputs: Outputs, journal: Journal
    ) -> None:
        self._client = client
        self._wanted = wanted
        self._outputs = outputs
        self._journal = journal
        self._replays = 0
        self.state: VideoState | None = None

    @property
    def frames(self) -> Frames:
        """What was tracked so far."""
        return self._journal.frames

    def open(self, session_id: str | None) -> tuple[VideoState, str]:
        """The session, with its prompts; and a word on whether it is a new one."""
        take_up = session_id is not None
        self._journal.run["session"] = session_id = session_id or uuid.uuid4().hex
        if take_up:
            try:
                return self._take_up(session_id), "taken up"
            except SessionNotFoundError:
                self._journal.frames.clear()
        return self._begin(session_id), "begun"

    def plan(self, num_frames: int) -> list[tuple[list[int], bool]]:
        """Frames that are still to be tracked, and in which direction (reverse)."""
        prompted = [frame for frame, _ in self._wanted.prompts]
        first, last = min(prompted), max(prompted)
        most = num_frames if self._wanted.most is None else self._wanted.most
        forward = range(first, min(first + most + 1, num_frames))
        start = last if self._wanted.direction == BACKWARD else first
        backward = range(start, max(start - most, 0) - 1, -1)
        done = self._journal.frames
        if self._wanted.direction == FORWARD:
            return [(remaining(forward, done), False)]
        if self._wanted.direction == BACKWARD:
            return [(remaining(backward, done), True)]
        return [(remaining(forward, done), False), (remaining(backward[1:], done), True)]

    def track(self, frames: list[int], reverse: bool, advance: Callable[[], None]) -> None:
        """Go through frames, each written down as it comes."""
        while frames:
            try:
                self._track(frames, reverse, advance)
                return
            except SessionNotFoundError:
                assert self.state is not None  # noqa: S101 - it was opened
                self._replays += 1
                if self.state.has_past or self._replays > MOST_REPLAYS:
                    raise
                self._client.replay(self.state)
            frames = remaining(iter(frames), self._journal.frames)

    def _track(self, frames: list[int], reverse: bool, advance: Callable[[], None]) -> None:
        assert self.state is not None  # noqa: S101 - it was opened
        run = self._client.propagate_in_video(
            self.state, frames[0], len(frames) - 1, reverse, formats=self._formats()
        )
        # Meta's generator has nothing to do backward from frame 0.
        if reverse and frames == [0]:
            run = self._client.propagate_in_video(
                self.state, 1, 1, reverse, formats=self._formats()
            )
        wanted = set(frames)
        for frame in run:
            if frame.frame_idx in wanted:
                self._keep(frame)
                advance()

    def _keep(self, frame: TrackedFrame) -> None:
        save_frame_masks(self._outputs.folders, frame)
        self._journal.add(frame)

    def _formats(self) -> tuple[str, ...]:
        return ("rle", "png") if self._outputs.folders else ("rle",)

    def _begin(self, session_id: str) -> VideoState:
        wanted = self._wanted
        self.state = self._client.init_state(
            wanted.video,
            upload=wanted.upload,
            frame_format=wanted.frame_format,
            session_id=session_id,
            **wanted.options,
        )
        self._journal.begin()
        try:
            for (frame, number), prompt in wanted.prompts.items():
                self._make(frame, number, prompt)
        except InvalidInputError:
            self._client.close_state(self.state)  # nothing was tracked: there is nothing to resume
            self._journal.remove()
            raise
        return self.state

    def _take_up(self, session_id: str) -> VideoState:
        wanted = self._wanted
        video = None if wanted.upload else wanted.video
        self.state = self._client.attach(session_id, video, frame_format=wanted.frame_format)
        self._journal.load()
        objects = self._client.status(self.state)["objects"]
        new = [
            (frame, number)
            for frame, number in wanted.prompts
            if frame not in objects.get(str(number), {}).get("prompted_frames", [])
        ]
        if new:  # frames were tracked without them
            self._journal.frames.clear()
        self._journal.begin()
        for frame, number in new:
            self._make(frame, number, wanted.prompts[frame, number])
        return self.state

    def _make(self, frame: int, number: int, prompt: FramePrompt) -> None:
        assert self.state is not None  # noqa: S101 - it was opened
        if prompt.mask is not None:
            self._client.add_new_mask(self.state, frame, number, prompt.mask, formats=())
            return
        self._client.add_new_points_or_box(
            self.state,
            frame,
            number,
            prompt.points or None,
            prompt.labels or None,
            box=prompt.box,
            formats=(),
        )
