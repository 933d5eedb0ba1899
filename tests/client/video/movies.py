"""Small video files whose frames say their numbers."""

import io
import struct
from fractions import Fraction

import av
import numpy as np


def painted(number: int, width: int = 96, height: int = 64) -> np.ndarray:
    """A frame that says its number in two shades that survive any codec, its upper left corner white."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2] = 20 + 12 * (number % 16)
    pixels[:, width // 2 :] = 20 + 12 * (number // 16)
    pixels[:16, :16] = 255
    return pixels


def number_of(picture: np.ndarray) -> int:
    height, width = picture.shape[:2]
    low = round((float(picture[height // 2 :, : width // 2].mean()) - 20) / 12)
    high = round((float(picture[height // 2 :, width // 2 :].mean()) - 20) / 12)
    return 16 * high + low


def encoded(
    frames: int, container: str = "mp4", codec: str = "mpeg4", gop: int = 12, times=None
) -> bytes:
    """A video whose frames are `painted`; `times`: of each frame, in 1/90000 s."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as file:
        stream = file.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.gop_size = gop
        stream.codec_context.time_base = Fraction(1, 90000 if codec == "libx264" else 25)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(painted(number), format="rgb24")
            if times is None:
                frame.pts, frame.time_base = number, Fraction(1, 25)
            else:
                frame.pts, frame.time_base = times[number], Fraction(1, 90000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return buffer.getvalue()


def turned(mp4: bytes, degrees: int) -> bytes:
    """The same file, which players show turned clockwise: the matrix in its track header says so."""
    sine, cosine = {90: (1, 0), 180: (0, -1), 270: (-1, 0)}[degrees]
    matrix = struct.pack(
        ">9i", cosine << 16, sine << 16, 0, -sine << 16, cosine << 16, 0, 0, 0, 1 << 30
    )
    at = mp4.index(b"tkhd") + 4 + 40  # version 0: what comes before the matrix takes 40 bytes
    assert mp4[at : at + 4] == struct.pack(">i", 1 << 16)
    return mp4[:at] + matrix + mp4[at + 36 :]
