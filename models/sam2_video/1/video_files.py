"""A video file's frames by number, upright, as RGB. Needs PyAV.

Numbers are those of a decoder that begins at the start and leaves nothing out. A packet is a frame in the
codecs of ONE_FRAME_A_PACKET, so that there reading packets is enough to number all frames; in others, and
where a container does not say when packets are shown, everything is decoded once to know.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, BinaryIO

from frame_index import FrameIndex
from PIL import Image
from upright_frames import TURNING_SIDEWAYS, transposition_of
from video_containers import Container
from video_errors import InvalidStepError
from video_streams import VideoStream, display_matrix

ONE_FRAME_A_PACKET = frozenset(
    ("h264", "hevc", "av1", "vp8", "vp9", "mjpeg", "prores", "dnxhd", "ffv1", "png", "rawvideo")
)
# Begins that are tried before everything is decoded from the start, where a file's marks lead astray.
BEGINS_TRIED = 3
# FFmpeg does not always say which.
OR_NO_MEMORY = (
    ": its data are damaged, or take more memory than a video may (max_video_memory_bytes)"
)


@dataclass(frozen=True)
class VideoFacts:
    """What a video is, its frames upright."""

    num_frames: int
    width: int
    height: int
    frame_rate: float | None
    codec: str
    container: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class VideoFile:
    """One file, open at one place of it."""

    def __init__(
        self,
        file: BinaryIO,
        kind: Container,
        *,
        max_pixels: int,
        max_frames: int,
        index: FrameIndex | None = None,
    ) -> None:
        """`index` is an earlier one of the same file, which then need not be read through again.

        Raises:
            InvalidStepError: there is no video in it, or one beyond the limits.
        """
        self._kind, self._max_frames = kind, max_frames
        self._stream = VideoStream(file, kind, max_pixels)
        self._position = 0
        self._walk: Iterator[tuple[int, Any]] = iter(())
        self.index = index or self._number_frames()
        if not self.index.count:
            raise InvalidStepError(
                "video: expected at least one frame that can be decoded, got none"
            )
        self._begin(0)
        self._stored_hw: tuple[int, int] | None = None
        first = next(self._walk, None)
        if first is None or first[0] != 0:
            raise InvalidStepError(
                f"video: expected a sound file, got one whose first frame does not decode{OR_NO_MEMORY}"
            )
        self._stored_hw = first[1].height, first[1].width
        self._transposition = transposition_of(display_matrix(first[1]))
        self._begin(0)

    @property
    def position(self) -> int:
        """The frame that comes next without going back."""
        return self._position

    @property
    def facts(self) -> VideoFacts:
        assert self._stored_hw is not None  # noqa: S101 - set when the file was opened
        height, width = self._stored_hw
        if self._transposition in TURNING_SIDEWAYS:
            height, width = width, height
        return VideoFacts(
            self.index.count,
            width,
            height,
            self._stream.frame_rate,
            self._stream.codec,
            self._kind.name,
        )

    def frames_until(self, number: int) -> Iterator[tuple[int, Any]]:
        """The frame of this number as the last one, before it those that were decoded on the way to it, as
        the decoder gives them: see picture_of.

        Raises:
            InvalidStepError: it does not decode.
        """
        for begin in self._begins_for(number):
            if begin is not None:
                self._begin(begin)
            for found, frame in self._walk:
                self._position = found + 1
                if found > number:
                    break
                yield found, frame
                if found == number:
                    return
        raise InvalidStepError(
            f"frame_index: expected a frame that decodes, got {number}, which does not{OR_NO_MEMORY}"
        )

    def picture_of(self, frame: Any) -> Image.Image:
        """A decoded frame, upright, in RGB."""
        if (frame.height, frame.width) != self._stored_hw:
            raise InvalidStepError(
                f"video: expected frames of one size, got {self._stored_hw} (height, width) and"
                f" {(frame.height, frame.width)}"
            )
        picture = Image.fromarray(frame.to_ndarray(format="rgb24"))
        return picture if self._transposition is None else picture.transpose(self._transposition)

    def _begins_for(self, number: int) -> Iterator[int | None]:
        """Where to begin for a frame: None goes on from here; the start comes last."""
        keys = self.index.keys_up_to(number)
        if keys[0] <= self._position <= number:
            yield None
        yield from keys[:BEGINS_TRIED]
        if 0 not in keys[:BEGINS_TRIED]:
            yield 0

    def _number_frames(self) -> FrameIndex:
        """Reads the whole file through once."""
        times: list[int | None] = []
        key_times: list[int | None] = []
        for packet in self._stream.packets():
            if not self._stream.shows_something(packet):
                continue
            times.append(packet.pts)
            if packet.is_keyframe:
                key_times.append(packet.pts)
            self._check_count(len(times))
        is_ordered = None not in times and len(set(times)) == len(times)
        starts = [time for time in key_times if time is not None]
        if self._stream.codec in ONE_FRAME_A_PACKET and self._kind.has_times and is_ordered:
            return FrameIndex.of_times([time for time in times if time is not None], starts)
        return self._count_frames(starts)

    def _count_frames(self, key_times: list[int]) -> FrameIndex:
        """Decodes everything."""
        self._stream.reopen()
        times: list[int | None] = []
        for frame in self._stream.frames():
            times.append(frame.pts)
            self._check_count(len(times))
        known = [time for time in times if time is not None]
        rises = all(a < b for a, b in pairwise(known))
        # In a container without times they come from the order of packets, which reordered frames belie.
        is_reliable = self._kind.has_times or not self._stream.reorders_frames
        if len(known) == len(times) and rises and is_reliable:
            return FrameIndex.of_times(known, key_times)
        return FrameIndex.counted(len(times))

    def _check_count(self, count: int) -> None:
        if count > self._max_frames:
            raise InvalidStepError(
                f"video: expected at most {self._max_frames} frames (max_video_frames), got more"
            )

    def _begin(self, number: int) -> None:
        """Goes to a frame of `index.keys`; what decodes from there is what a decoder from the start gives."""
        times = self.index.times
        if number == 0 or times is None:
            self._stream.reopen()
        else:
            self._stream.seek(times[number])
        self._position = number
        self._walk = self._numbered(number)

    def _numbered(self, begin: int) -> Iterator[tuple[int, Any]]:
        for count, frame in enumerate(self._stream.frames()):
            number = count if self.index.times is None else self.index.number_at(frame.pts)
            # Frames before the one begun with lack what they refer to.
            if number is not None and begin <= number < self.index.count:
                yield number, frame
