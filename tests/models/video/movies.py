"""Small video files of known frames, made with PyAV."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np

WIDTH, HEIGHT, FRAMES = 64, 48, 24
PIXEL_FORMATS = {"mjpeg": "yuvj420p", "ffv1": "yuv444p"}


def pictures(count: int = FRAMES, width: int = WIDTH, height: int = HEIGHT) -> list[np.ndarray]:
    """RGB frames that differ from one another everywhere."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (height // 4 + 1, width // 4 + 1, 3), np.uint8)
    base = coarse.repeat(4, 0).repeat(4, 1)[:height, :width]
    shown = []
    for number in range(count):
        frame = np.roll(base, (number, 2 * number), (0, 1)).copy()
        frame[: height // 4] = number * 9 % 256
        shown.append(frame)
    return shown


def movie(
    frames: Sequence[np.ndarray] | None = None,
    codec: str = "libx264",
    container: str = "mp4",
    *,
    key_every: int = 8,
    b_frames: int | None = None,
    times_ms: Sequence[int] | None = None,
    rotation: int | None = None,
    matrix: Sequence[int] | None = None,
    pixel_format: str | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> bytes:
    """A video file. times_ms: when each frame is shown, for a variable rate; matrix: a, b, c, d of the
    display matrix; rotation: counterclockwise degrees."""
    frames = pictures() if frames is None else frames
    height, width = frames[0].shape[:2] if len(frames) else (HEIGHT, WIDTH)
    file = io.BytesIO()
    with av.open(file, "w", format=container, options=container_options or {}) as out:
        stream: Any = out.add_stream(codec, rate=25, options=options or {})
        stream.width, stream.height = width, height
        stream.pix_fmt = pixel_format or PIXEL_FORMATS.get(codec, "yuv420p")
        context = stream.codec_context
        context.gop_size = key_every
        context.time_base = Fraction(1, 25 if times_ms is None else 1000)
        if b_frames is not None:
            context.max_b_frames = b_frames
        if rotation is not None:
            stream.set_display_rotation(rotation)
        if matrix is not None:
            stream.set_display_matrix(_full_matrix(matrix))
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts = number if times_ms is None else times_ms[number]
            frame.time_base = context.time_base
            out.mux(stream.encode(frame))
        if len(frames):
            out.mux(stream.encode(None))
        else:
            out.start_encoding()
    return file.getvalue()


def sound() -> bytes:
    """A file of a second of silence, without pictures."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        stream = out.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 8000), np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate = 8000
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return file.getvalue()


def decoded(data: bytes) -> list[np.ndarray]:
    """What a decoder that leaves nothing out shows, as stored: the reference of all numbers."""
    with av.open(io.BytesIO(data)) as file:
        return [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]


def of_declared_size(width: int, height: int) -> bytes:
    """An AVI of motion JPEG whose headers and pictures all declare a size that they do not have."""
    data = bytearray(movie(codec="mjpeg", container="avi"))
    size = np.array([width, height], "<i4").tobytes()
    main = data.index(b"avih") + 8 + 32
    data[main : main + 8] = size
    form = data.index(b"strf") + 8 + 4
    data[form : form + 8] = size
    for number in range(FRAMES):
        _declare(data, number, width, height)
    return bytes(data)


def with_a_large_picture_inside(number: int, width: int, height: int) -> bytes:
    """An AVI of motion JPEG, one of whose pictures declares another size than the file does."""
    data = bytearray(movie(codec="mjpeg", container="avi"))
    _declare(data, number, width, height)
    return bytes(data)


def with_a_damaged_picture_inside(number: int) -> bytes:
    """An AVI of motion JPEG, one of whose pictures is all zeros."""
    data = bytearray(movie(codec="mjpeg", container="avi"))
    starts = [place for place in range(len(data)) if data[place : place + 3] == b"\xff\xd8\xff"]
    end = data.index(b"\xff\xd9", starts[number])
    data[starts[number] : end + 2] = bytes(end + 2 - starts[number])
    return bytes(data)


def _declare(data: bytearray, number: int, width: int, height: int) -> None:
    """Writes a size into the frame header (SOF0) of a picture of motion JPEG."""
    headers = [place for place in range(len(data)) if data[place : place + 2] == b"\xff\xc0"]
    place = headers[number]
    data[place + 5 : place + 9] = np.array([height, width], ">u2").tobytes()


def _full_matrix(matrix: Sequence[int]) -> list[int]:
    a, b, c, d = (part << 16 for part in matrix)
    return [a, b, 0, c, d, 0, 0, 0, 1 << 30]
