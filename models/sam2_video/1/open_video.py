"""A video that a session was started with: its file, what is known of it, and its process while it has one.

The file lies in memory without a name (memfd), which the process that decodes it inherits: it is there once.
A line of JSON each way says which frame is meant and what came of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
from memory_file import MemoryFile
from video_errors import (
    CancelledStepError,
    InvalidStepError,
    OverloadedError,
    UnsupportedStepError,
)
from worker_process import (
    START_SECONDS,
    WorkCancelledError,
    WorkerEndedError,
    WorkerProcess,
    WorkerStarvedError,
)

WORKER = Path(__file__).with_name("video_worker.py")
# A decode gets its processor seconds; on a machine so busy that they take this much longer it is given up.
BUSY_SECONDS = 100.0
LOST = "video: the process that decodes it"
TRY_AGAIN = "try again in a moment"

IsCancelled = Callable[[], bool]


@dataclass(frozen=True)
class VideoLimits:
    """See config.pbtxt, which declares them."""

    max_video_bytes: int
    max_video_pixels: int
    max_video_frames: int
    max_video_decode_seconds: int
    max_video_memory_bytes: int
    max_video_decoders: int
    video_frames_kept: int
    # Of a pixel that the encoder takes: 2 (FP16) or 1 (UINT8).
    pixel_bytes: int


@dataclass(frozen=True)
class VideoPicture:
    """A frame [3, S, S] as the encoder takes it, and the upright frame's (height, width)."""

    resized: npt.NDArray[Any]
    original_hw: tuple[int, int]


class OpenVideo:
    """One caller at a time, except for `kill`, which anybody may call, and what is known."""

    def __init__(self, data: bytes, side: int, limits: VideoLimits) -> None:
        self._limits, self._side = limits, side
        self._file = MemoryFile("sam2-video")
        self._picture, self._index = MemoryFile("sam2-video-frame"), MemoryFile("sam2-video-index")
        self._worker: WorkerProcess | None = None
        self.facts: dict[str, Any] = {}
        # Since they were last counted.
        self.frames_read = self.frames_decoded = self.processes_started = 0
        self.is_closed = False
        try:
            self._file.write(data)
        except (OSError, MemoryError) as error:
            self.dispose()
            raise OverloadedError(
                f"video: the machine has no room for {len(data)} bytes at the moment; {TRY_AGAIN}"
            ) from error
        self.file_bytes = len(data)

    @property
    def size_bytes(self) -> int:
        """What the session holds for it: the file, and which frame lies where."""
        return self.file_bytes + (0 if self.is_closed else self._index.size_bytes)

    @property
    def num_frames(self) -> int:
        return int(self.facts["num_frames"])

    @property
    def original_hw(self) -> tuple[int, int]:
        return int(self.facts["height"]), int(self.facts["width"])

    @property
    def worker_pid(self) -> int | None:
        return None if self._worker is None else self._worker.pid

    def begin(self, is_cancelled: IsCancelled) -> None:
        """Starts its process where it has none.

        Raises:
            StepRefusedError: the file cannot be used, or not now.
        """
        if self._worker is not None:
            if self._worker.is_alive:
                return
            self.end()
        memories = (self._file, self._picture, self._index)
        settings = json.dumps({**vars(self._limits), "side": self._side})
        self._worker = WorkerProcess(
            WORKER, [*(str(m.fd) for m in memories), settings], [m.fd for m in memories]
        )
        self.processes_started += 1
        seconds = START_SECONDS + self._limits.max_video_decode_seconds + BUSY_SECONDS
        said = self._hear(lambda worker: worker.wait(seconds, is_cancelled))
        if "ready" not in said:
            self.end()
            if "unsupported" in said:
                raise UnsupportedStepError(
                    "video: this server reads no video files, for PyAV (the package av) cannot be used in its"
                    f" environment ({said['unsupported']}); send the frames' pictures as image instead"
                )
            raise InvalidStepError(said["refused"])
        self.facts = said["ready"]

    def read(self, number: int, is_cancelled: IsCancelled) -> VideoPicture:
        """A frame by number; where it cannot be had, the process has ended or is as it was."""
        self.begin(is_cancelled)
        seconds = 2 * self._limits.max_video_decode_seconds + BUSY_SECONDS
        said = self._hear(lambda worker: worker.ask({"frame": number}, seconds, is_cancelled))
        if "refused" in said:
            raise InvalidStepError(said["refused"])
        self.frames_read += 1
        self.frames_decoded += said["decoded"]
        resized = self._picture.read_array(tuple(said["shape"]), said["dtype"])
        self._picture.empty()
        return VideoPicture(resized, self.original_hw)

    def kill(self) -> None:
        """Ends its process, whatever that is doing; who waits for a frame is told."""
        worker = self._worker
        if worker is not None:
            worker.kill()

    def end(self) -> None:
        """Ends its process; the next frame starts another."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def dispose(self) -> None:
        """Gives everything back."""
        self.end()
        self.is_closed = True
        for memory in (self._file, self._picture, self._index):
            memory.close()

    def _hear(self, talk: Callable[[WorkerProcess], dict[str, Any]]) -> dict[str, Any]:
        assert self._worker is not None  # noqa: S101 - begin() has started it
        try:
            return talk(self._worker)
        except WorkCancelledError as error:
            self.end()
            raise CancelledStepError(str(error)) from None
        except WorkerStarvedError as error:
            self.end()
            raise OverloadedError(f"{LOST} is not ready: {error}; {TRY_AGAIN}") from None
        except WorkerEndedError as ended:
            self.end()
            raise self._explain(ended) from None

    def _explain(self, ended: WorkerEndedError) -> Exception:
        seconds = self._limits.max_video_decode_seconds
        if ended.is_out_of_time:
            return InvalidStepError(
                f"video: expected a frame that is reached within {seconds} s of processor time"
                " (max_video_decode_seconds), got one that takes longer"
            )
        if ended.crash is not None:
            return InvalidStepError(
                f"video: expected a sound file, got one that ended its decoder ({ended.crash})"
            )
        return OverloadedError(f"{LOST} was ended from outside; {TRY_AGAIN}")
