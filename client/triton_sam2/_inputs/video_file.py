"""A video file's frames, upright and numbered as they are decoded. Needs PyAV.

OpenCV reads videos as well, but ends silently at what it cannot decode, seeks to the wrong frame in many
files and has no word for its errors; PyAV is also what the server reads uploads with: one numbering.
"""

import io
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from triton_sam2._errors import InvalidInputError
from triton_sam2._extras import require

# Up to here frames are counted by decoding them. Packets, which longer videos are counted by, may hold
# frames that cannot be decoded; and only a video shorter than SAM 2's 16 pointers is tracked differently by
# its length.
COUNT_BY_DECODING = 64
# Decoded frames that stay, so that going backward decodes each stretch once and not once for each frame.
KEPT_FRAMES = 32


class VideoFile:
    """Frames of one video file (a path, or its bytes) by number; forward is quick, backward possible."""

    def __init__(self, source: str | Path | bytes) -> None:
        self._av = require("av", "reading video files", "video")
        self._source = source
        self._name = "the video's bytes" if isinstance(source, bytes) else str(source)
        self._container: Any = None
        self._kept: OrderedDict[int, Image.Image] = OrderedDict()
        self._frames = self._open()
        self._next = 0
        self._times, self._keyframes = self._index()
        self.num_frames = self._count()

    def read(self, frame_index: int) -> Image.Image | None:
        """One frame, [H, W, 3] RGB and upright; None behind the last one."""
        if frame_index not in self._kept:
            self._go_near(frame_index)
            while self._next <= frame_index:
                if (picture := self._decode()) is None:
                    return None
                self._keep(self._next - 1, picture)
        return self._kept[frame_index]

    @property
    def frames_per_second(self) -> Fraction:
        """On average, as the file says; 25 where it does not."""
        rate = self._container.streams.video[0].average_rate
        return Fraction(rate) if rate else Fraction(25)

    def close(self) -> None:
        """Close the file."""
        if self._container is not None:
            self._container.close()
            self._container = None

    def _open(self) -> Iterator[Any]:
        self.close()
        source = io.BytesIO(self._source) if isinstance(self._source, bytes) else str(self._source)
        try:
            self._container = self._av.open(source)
        except (OSError, ValueError) as error:  # PyAV's errors are both
            raise InvalidInputError(f"video: cannot read {self._name}: {error}") from error
        if not self._container.streams.video:
            raise InvalidInputError(f"video: {self._name} has no pictures, only sound or text")
        stream = self._container.streams.video[0]
        stream.thread_type = "AUTO"
        frames: Iterator[Any] = self._container.decode(stream)
        return frames

    def _index(self) -> tuple[list[int], list[int]]:
        """Times of all frames in order, and those at which decoding can begin; without decoding anything."""
        times, keyframes = [], []
        try:
            for packet in self._container.demux(self._container.streams.video[0]):
                if packet.pts is None or packet.is_discard:
                    continue
                times.append(packet.pts)
                if packet.is_keyframe:
                    keyframes.append(packet.pts)
        except self._av.FFmpegError as error:
            raise InvalidInputError(f"video: {self._name} is broken: {error}") from error
        self._frames, self._next = self._open(), 0
        return sorted(times), sorted(keyframes)

    def _count(self) -> int:
        count = len(self._times)
        if count <= COUNT_BY_DECODING:
            count = 0
            while self._decode() is not None:
                count += 1
            self._frames, self._next = self._open(), 0
        if count == 0:
            raise InvalidInputError(f"video: {self._name} has no frames that can be decoded")
        return count

    def _go_near(self, frame_index: int) -> None:
        """Make the next decoded frame one at or before this."""
        times = self._times
        can_seek = len(set(times)) == len(times) > frame_index
        if not can_seek:  # no times, or the same twice: only the beginning is certain
            if frame_index < self._next:
                self._frames, self._next = self._open(), 0
            return
        # From somewhat before it, for the next one asked for may be the one before.
        start = max(0, frame_index - (KEPT_FRAMES - 1) if frame_index < self._next else frame_index)
        keyframe = self._keyframes[bisect_right(self._keyframes, times[start]) - 1 :]
        if not keyframe or keyframe[0] > times[start]:
            if frame_index < self._next:
                self._frames, self._next = self._open(), 0
            return
        at = times.index(keyframe[0])
        if self._next <= frame_index and at <= self._next + KEPT_FRAMES:
            return  # decoding on is as near
        stream = self._container.streams.video[0]
        self._container.seek(times[at], stream=stream, backward=True)
        self._frames = self._container.decode(stream)
        self._find_position()

    def _find_position(self) -> None:
        """Which frame the decoder gives next after a seek: look at it, and put it back."""
        first = next(self._frames, None)
        if first is None or first.pts not in self._times:
            self._frames, self._next = self._open(), 0
            return
        self._next = self._times.index(first.pts)
        rest = self._frames
        self._frames = iter(_first_then(first, rest))

    def _decode(self) -> Image.Image | None:
        try:
            frame = next(self._frames, None)
        except self._av.FFmpegError as error:
            raise InvalidInputError(
                f"video: frame {self._next} of {self._name} cannot be decoded: {error}"
            ) from error
        if frame is None:
            return None
        self._next += 1
        return Image.fromarray(upright(frame))

    def _keep(self, frame_index: int, picture: Image.Image) -> None:
        self._kept[frame_index] = picture
        self._kept.move_to_end(frame_index)
        while len(self._kept) > KEPT_FRAMES:
            self._kept.popitem(last=False)


def upright(frame: Any) -> NDArray[np.uint8]:
    """A decoded frame's pixels as players show them: RGB, turned as the file says."""
    pixels: NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
    quarter_turns = round(float(frame.rotation) / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, quarter_turns))


def _first_then(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest
