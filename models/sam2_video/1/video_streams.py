"""The video stream of a file: its packets and frames from any place on. Needs PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import av
from video_containers import Container
from video_errors import InvalidStepError

ATTACHED_PICTURE = av.stream.Disposition.attached_pic
# In a packet's first byte.
VP8_IS_SHOWN = 0x10


class VideoStream:
    """The first video stream that is no cover picture; at most max_pixels in a frame."""

    def __init__(self, file: BinaryIO, kind: Container, max_pixels: int) -> None:
        """Raises InvalidStepError where there is none, or one beyond the limit."""
        av.logging.set_level(None)
        self._file, self._kind, self._max_pixels = file, kind, max_pixels
        self._container: Any = None
        self.reopen()

    @property
    def codec(self) -> str:
        return str(self._stream.codec_context.codec.canonical_name)

    @property
    def reorders_frames(self) -> bool:
        """Whether frames are stored in another order than they are shown in; known after some decoding."""
        return bool(self._stream.codec_context.has_b_frames)

    @property
    def frame_rate(self) -> float | None:
        rate = self._stream.average_rate
        return None if rate is None else float(rate)

    def reopen(self) -> None:
        """Goes to the start, as if nothing had been read."""
        if self._container is not None:
            self._container.close()
        self._file.seek(0)
        options = {"max_pixels": str(self._max_pixels)}
        try:
            self._container = av.open(
                self._file, format=self._kind.demuxer, options=options, metadata_errors="replace"
            )
        except MemoryError:
            raise
        except (av.FFmpegError, OSError) as error:
            raise InvalidStepError(
                f"video: expected a complete {self._kind.name} file, got one that is damaged, or cut before"
                " what says where its frames are"
            ) from error
        streams = [s for s in self._container.streams.video if not s.disposition & ATTACHED_PICTURE]
        if not streams:
            raise InvalidStepError(
                f"video: expected a video stream, got {self._describe_streams()}"
            )
        self._stream = streams[0]
        context = self._stream.codec_context
        if context is None:
            raise InvalidStepError(
                "video: expected a codec that is known here, got one that is not"
            )
        self._check_size(context.width, context.height)
        context.options = options
        # Others on this machine wait for processors too; frames are read ahead instead.
        context.thread_count = 1

    def seek(self, time: int) -> None:
        """Goes to the last key frame at or before a time, by the file's own marks."""
        try:
            self._container.seek(time, stream=self._stream, backward=True)
        except MemoryError:
            raise
        except av.FFmpegError:
            # No marks, or wrong ones: the way there begins at the start.
            self.reopen()

    def packets(self) -> Iterator[Any]:
        """The packets from here on."""
        try:
            for packet in self._container.demux(self._stream):
                if packet.size:
                    yield packet
        except MemoryError:
            raise
        except av.FFmpegError:
            # The file ends in the middle of something; what came before it counts.
            return

    def shows_something(self, packet: Any) -> bool:
        """Whether a packet holds a frame to be shown, and all of it."""
        is_hidden = self.codec == "vp8" and not memoryview(packet)[0] & VP8_IS_SHOWN
        return not (packet.is_discard or packet.is_corrupt or is_hidden)

    def frames(self) -> Iterator[Any]:
        """Frames from here on; packets that do not decode are passed over, as players do."""
        for packet in self.packets():
            yield from self._decode(packet)
        yield from self._decode(None)

    def _decode(self, packet: Any) -> list[Any]:
        try:
            return list(self._stream.codec_context.decode(packet))
        except MemoryError:
            raise
        except (av.FFmpegError, EOFError):
            return []

    def _check_size(self, width: int, height: int) -> None:
        # FFmpeg takes a size beyond max_pixels for none.
        size = f"{width}x{height}" if width else "none or a larger one declared"
        if not 0 < width * height <= self._max_pixels:
            raise InvalidStepError(
                f"video: expected frames of at most {self._max_pixels} pixels (max_video_pixels), got {size}"
            )

    def _describe_streams(self) -> str:
        kinds = sorted({stream.type for stream in self._container.streams})
        return f"a file of {' and '.join(kinds)} alone" if kinds else "a file without any"


def display_matrix(frame: Any) -> bytes | None:
    """Nine int32 that say how a decoded frame is to be turned; None where there are none."""
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            return bytes(data)
    return None
