"""The process that decodes one video: frames by number for its parent, squashed as the encoder takes them.

Started by video_decoders.py, which says how the two talk. Whatever a file does to a decoder, it does it here.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
from memory_file import MemoryFile
from pixel_types import PIXEL_TYPES, TYPE_OF_BYTES, PixelType
from square_pictures import bicubic_square
from video_containers import recognise_video
from video_errors import InvalidStepError
from worker_bounds import begin_work, processor_seconds, requests, say

HEAD_BYTES = 4096
UInt8Array = npt.NDArray[np.uint8]


class FrameReader:
    """Frames of a VideoFile at side x side. Keeps the last `most_kept`: on the way back through a video the
    frames before the one that is asked for are decoded with it, and asked for next."""

    def __init__(self, video: Any, side: int, most_kept: int) -> None:
        self._video, self._side, self._most_kept = video, side, most_kept
        self._kept: dict[int, UInt8Array] = {}
        self._last, self._next = -1, -1
        self._decoded = 0

    def read(self, number: int) -> UInt8Array:
        """One frame uint8 [3, side, side]."""
        frame = self._kept.get(number)
        if frame is None:
            frame = self._decode(number)
        self._last, before = number, self._last
        self._next = number + (1 if number >= before else -1)
        return frame

    def take_count(self) -> int:
        """Frames decoded since this was asked last."""
        count, self._decoded = self._decoded, 0
        return count

    def read_ahead(self) -> None:
        """The frame that is likely to be asked for next, while the one before it is being tracked."""
        if 0 <= self._next < self._video.index.count and self._next not in self._kept:
            self._decode(self._next)

    def _decode(self, number: int) -> UInt8Array:
        is_back = number < self._last
        first_kept = number - self._most_kept + 1 if is_back else number
        for found, frame in self._video.frames_until(number):
            self._decoded += 1
            if found >= first_kept:
                picture = self._video.picture_of(frame)
                self._keep(found, bicubic_square(picture, self._side))
        return self._kept[number]

    def _keep(self, number: int, frame: UInt8Array) -> None:
        self._kept.pop(number, None)
        self._kept[number] = frame
        while len(self._kept) > self._most_kept:
            del self._kept[next(iter(self._kept))]


def main() -> None:
    """`video_worker.py VIDEO_FD PICTURE_FD INDEX_FD LIMITS`: serves until its input ends."""
    file, picture, index = (MemoryFile("", int(fd)) for fd in sys.argv[1:4])
    limits = json.loads(sys.argv[4])
    try:
        from video_files import VideoFile  # noqa: F401, PLC0415 - whether PyAV is there
    except ImportError as error:
        say({"unsupported": str(error)})
        return
    begin_work(limits["max_video_memory_bytes"])
    try:
        with processor_seconds(limits["max_video_decode_seconds"]):
            reader, facts = _open(file, index, limits)
    except (InvalidStepError, MemoryError) as error:
        say(_refusal(error))
        return
    say({"ready": facts})
    pixel_type = PIXEL_TYPES[TYPE_OF_BYTES[limits["pixel_bytes"]]]
    for request in requests():
        seconds = limits["max_video_decode_seconds"]
        say(_answer(reader, request["frame"], picture, pixel_type, seconds))
        try:
            with processor_seconds(limits["max_video_decode_seconds"]):
                reader.read_ahead()
        except (InvalidStepError, MemoryError):
            # Nobody asked for it; who does will be told.
            continue


def _open(
    file: MemoryFile, stored_index: MemoryFile, limits: dict[str, int]
) -> tuple[FrameReader, dict[str, Any]]:
    from frame_index import FrameIndex  # noqa: PLC0415
    from video_files import VideoFile  # noqa: PLC0415

    opened = file.open()
    kind = recognise_video(opened.read(HEAD_BYTES), file.size_bytes)
    earlier = stored_index.read()
    video = VideoFile(
        opened,
        kind,
        max_pixels=limits["max_video_pixels"],
        max_frames=limits["max_video_frames"],
        index=FrameIndex.from_bytes(earlier) if earlier else None,
    )
    if not earlier:
        stored_index.write(video.index.to_bytes())
    return FrameReader(video, limits["side"], limits["video_frames_kept"]), video.facts.as_json()


def _answer(
    reader: FrameReader, number: int, picture: MemoryFile, pixel_type: PixelType, seconds: float
) -> dict[str, Any]:
    try:
        with processor_seconds(seconds):
            pixels = pixel_type.of(reader.read(number).astype(np.float32))
    except (InvalidStepError, MemoryError) as error:
        return _refusal(error)
    picture.write(pixels.tobytes())
    return {
        "shape": pixels.shape,
        "dtype": str(pixels.dtype),
        "decoded": reader.take_count(),
    }


def _refusal(error: InvalidStepError | MemoryError) -> dict[str, Any]:
    if isinstance(error, MemoryError):
        return {
            "refused": "video: expected frames that decode within the memory for one video"
            " (max_video_memory_bytes), got some that need more"
        }
    return {"refused": str(error)}


if __name__ == "__main__":
    main()
