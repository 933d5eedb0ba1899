"""Decodes the videos of all sessions, each in a process of its own, so many at a time.

Why not in one process for all: a file that brings its decoder down, or takes its memory, then hurts nobody
else's video, and nothing of one client's lies where another's is read. Where there are more videos than
processes, the process that was idle longest ends; its video goes on later with another, from a key frame.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from open_video import IsCancelled, OpenVideo, VideoLimits, VideoPicture
from video_errors import CancelledStepError, InvalidStepError, NotHeldError

Result = TypeVar("Result")


@dataclass
class DecoderCounts:
    """Frames handed over, frames decoded for them, seconds that steps waited for them so far; processes that
    were started and that were ended for another video's sake."""

    video_frames: int = 0
    video_decoded_frames: int = 0
    video_wait_seconds: float = 0.0
    video_decoders_started: int = 0
    video_decoders_displaced: int = 0


class VideoDecoders:
    """Opens videos and reads their frames, on threads of its own: as many as there may be processes."""

    def __init__(self, limits: VideoLimits, side: int) -> None:
        self._limits, self._side = limits, side
        self._threads = ThreadPoolExecutor(limits.max_video_decoders, "sam2-video-decoder")
        self._changed = threading.Condition()
        self._busy: set[OpenVideo] = set()
        # With a process, the longest unused first.
        self._idle: dict[OpenVideo, None] = {}
        self.counts = DecoderCounts()

    @property
    def processes(self) -> int:
        """How many there are now."""
        return len(self._busy) + len(self._idle)

    async def open(self, data: bytes, is_cancelled: IsCancelled) -> OpenVideo:
        """A video whose facts are known. Who opens it closes it.

        Raises:
            StepRefusedError: why not.
        """
        if len(data) > self._limits.max_video_bytes:
            raise InvalidStepError(
                f"video: expected at most {self._limits.max_video_bytes} bytes (max_video_bytes), got"
                f" {len(data)}"
            )
        video = OpenVideo(data, self._side, self._limits)
        try:
            await self._on_thread(video, lambda: video.begin(is_cancelled), is_cancelled)
        except BaseException:
            self.close(video)
            raise
        return video

    async def read(self, video: OpenVideo, number: int, is_cancelled: IsCancelled) -> VideoPicture:
        """A frame by number."""
        started = time.perf_counter()
        try:
            return await self._on_thread(
                video, lambda: video.read(number, is_cancelled), is_cancelled
            )
        finally:
            self.counts.video_wait_seconds += time.perf_counter() - started

    def close(self, video: OpenVideo) -> None:
        """Ends a video, also in the middle of a decode."""
        with self._changed:
            video.is_closed = True
            if video in self._busy:
                # Whoever is at it gives everything back.
                video.kill()
                return
            self._idle.pop(video, None)
        video.dispose()

    def shut_down(self) -> None:
        """Ends all processes."""
        with self._changed:
            videos = [*self._busy, *self._idle]
        for video in videos:
            self.close(video)
        self._threads.shutdown(cancel_futures=True)

    async def _on_thread(
        self, video: OpenVideo, work: Callable[[], Result], is_cancelled: IsCancelled
    ) -> Result:
        def at_its_turn() -> Result:
            if is_cancelled():
                raise CancelledStepError("the client cancelled this request")
            self._borrow(video)
            try:
                return work()
            finally:
                self._give_back(video)

        return await asyncio.get_running_loop().run_in_executor(self._threads, at_its_turn)

    def _borrow(self, video: OpenVideo) -> None:
        with self._changed:
            self._changed.wait_for(lambda: video not in self._busy)
            if video.is_closed:
                raise NotHeldError("session_id: this session has ended; start it again")
            if video in self._idle:
                del self._idle[video]
            while self.processes >= self._limits.max_video_decoders:
                # There is an idle one: no more threads than processes are at work, this one among them.
                displaced = next(iter(self._idle))
                del self._idle[displaced]
                displaced.end()
                self.counts.video_decoders_displaced += 1
            self._busy.add(video)

    def _give_back(self, video: OpenVideo) -> None:
        with self._changed:
            self._busy.discard(video)
            self.counts.video_frames += video.frames_read
            self.counts.video_decoded_frames += video.frames_decoded
            self.counts.video_decoders_started += video.processes_started
            video.frames_read = video.frames_decoded = video.processes_started = 0
            if video.is_closed:
                video.dispose()
            elif video.worker_pid is not None:
                self._idle[video] = None
            self._changed.notify_all()
