"""Pictures as a video file. Needs PyAV."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triton_sam2._errors import InvalidInputError
from triton_sam2._extras import require

MOVIE_ENDINGS = (".mp4", ".mov", ".mkv", ".avi")
# The first one that this build of FFmpeg has. H.264 is what browsers and mail programs show.
_CODECS = ("libx264", "libopenh264", "mpeg4")
_CODEC_OPTIONS = {"libx264": {"crf": "20", "preset": "fast"}, "mpeg4": {"q": "3"}}


def choose_codec() -> str:
    """The encoder that there is; raises MissingExtraError without PyAV, InvalidInputError without any."""
    av = require("av", "writing video files", "video")
    for name in _CODECS:
        try:
            av.codec.Codec(name, "w")
        except (av.FFmpegError, ValueError):
            continue
        return name
    raise InvalidInputError(f"video: PyAV's FFmpeg has none of the encoders {', '.join(_CODECS)}")


class MovieWriter:
    """Writes frames of one size; use it in a `with`. The file's ending names its kind."""

    def __init__(self, path: Path, frames_per_second: Fraction) -> None:
        av = require("av", "writing video files", "video")
        self._av = av
        self._path = path
        self._stream: Any = None
        self._rate = frames_per_second
        try:
            self._container = av.open(str(path), "w")
        except (OSError, ValueError) as error:
            raise InvalidInputError(f"cannot write {path}: {error}") from error

    def write(self, pixels: NDArray[np.uint8]) -> None:
        """One more frame, [H, W, 3] RGB. Odd sides get a row or column more, for video has no odd ones."""
        height, width = (side + side % 2 for side in pixels.shape[:2])
        if self._stream is None:
            codec = choose_codec()
            self._stream = self._container.add_stream(codec, rate=self._rate)
            self._stream.width, self._stream.height = width, height
            self._stream.pix_fmt = "yuv420p"
            self._stream.options = dict(_CODEC_OPTIONS.get(codec, {}))
        more = ((0, height - pixels.shape[0]), (0, width - pixels.shape[1]), (0, 0))
        even = np.ascontiguousarray(np.pad(pixels, more, mode="edge"))
        frame = self._av.VideoFrame.from_ndarray(even, format="rgb24")
        self._container.mux(self._stream.encode(frame))

    def __enter__(self) -> "MovieWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._stream is not None:
            self._container.mux(self._stream.encode())
        self._container.close()
