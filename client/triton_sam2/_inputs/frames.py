"""Where a video's frames come from ► the encoded image of each, which is what the server takes."""

import asyncio
import io
import os
import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Literal, Protocol, TypeAlias, cast, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from triton_sam2._errors import InvalidInputError
from triton_sam2._inputs.images import ImageSource, grey_or_rgb, image_file_bytes
from triton_sam2._inputs.video_file import VideoFile

FrameFormat: TypeAlias = Literal["png", "jpeg"]
VideoSource: TypeAlias = (
    str
    | os.PathLike[str]
    | bytes
    | NDArray[np.uint8]
    | Sequence[ImageSource]
    | Iterable[ImageSource]
    | AsyncIterator[ImageSource]
)
"""A video file, by its path or as bytes; a folder of pictures; a sequence of images, or an array
[T, H, W, 3]; or an iterator of images (a camera), whose end nobody knows."""

# As JPEG, the best that is not wasteful: colours at full resolution.
_JPEG_OPTIONS = {"quality": 95, "subsampling": 0}
_PICTURE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
# Frames of an iterator that can be sent again: those of a window, and a few that a correction goes back to.
_KEPT_LIVE_FRAMES = 32
USUAL_RATE = Fraction(25)


class FrameSource(Protocol):
    """Encoded frames by number."""

    num_frames: int | None
    """None where nobody knows it."""
    is_repeatable: bool
    """Whether every frame can be read again at any time."""
    frames_per_second: Fraction
    """25 where nobody knows it."""

    def read(self, frame_index: int) -> bytes | None:
        """A frame's image file; None behind the last one."""

    def close(self) -> None:
        """Let go of what was opened."""


class PictureFrames:
    """Images that are all at hand: files travel untouched, pixels are encoded."""

    is_repeatable = True
    frames_per_second = USUAL_RATE

    def __init__(self, images: Sequence[ImageSource], encode: "Encoder") -> None:
        if len(images) == 0:
            raise InvalidInputError("video: expected frames, got none")
        self._images = images
        self._encode = encode
        self.num_frames: int | None = len(images)

    def read(self, frame_index: int) -> bytes | None:
        """A frame's image file; None behind the last one."""
        if frame_index >= len(self._images):
            return None
        return self._encode(self._images[frame_index])

    def close(self) -> None:
        """Nothing is open."""


class FileFrames:
    """Frames of a video file, decoded here."""

    is_repeatable = True

    def __init__(self, source: str | Path | bytes, encode: "Encoder") -> None:
        self._file = VideoFile(source)
        self._encode = encode
        self.num_frames: int | None = self._file.num_frames
        self.frames_per_second = self._file.frames_per_second

    def read(self, frame_index: int) -> bytes | None:
        """A frame's image file; None behind the last one."""
        picture = self._file.read(frame_index)
        return None if picture is None else self._encode(picture)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class LiveFrames:
    """Frames of an iterator, each of which comes once."""

    is_repeatable = False
    frames_per_second = USUAL_RATE

    def __init__(
        self, images: Iterator[ImageSource], encode: "Encoder", num_frames: int | None
    ) -> None:
        self._images = images
        self._encode = encode
        self._next = 0
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self.num_frames = num_frames

    def read(self, frame_index: int) -> bytes | None:
        """A frame's image file; None once the iterator has ended."""
        while self._next <= frame_index:
            try:
                image = next(self._images)
            except StopIteration:
                return None
            self._kept[self._next] = self._encode(image)
            self._next += 1
            while len(self._kept) > _KEPT_LIVE_FRAMES:
                self._kept.popitem(last=False)
        if frame_index not in self._kept:
            raise InvalidInputError(
                f"frame_idx: frame {frame_index} of an iterator is gone, and the server does not hold it"
                f" either; the last {_KEPT_LIVE_FRAMES} are kept"
            )
        return self._kept[frame_index]

    def close(self) -> None:
        """The iterator is its owner's."""


class NoFrames:
    """Of a video that the server has itself."""

    is_repeatable = True
    frames_per_second = USUAL_RATE

    def __init__(self, num_frames: int | None = None) -> None:
        self.num_frames = num_frames

    def read(self, frame_index: int) -> bytes | None:
        """Nothing: the server has them."""
        raise InvalidInputError(
            f"frame_idx: frame {frame_index} is in the uploaded video, of which nothing is at hand here"
        )

    def close(self) -> None:
        """Nothing is open."""


Encoder: TypeAlias = Callable[[ImageSource], bytes]


def encoder(frame_format: FrameFormat | str) -> Encoder:
    """Images to image files. `png` loses nothing; `jpeg` is a fraction of it, and not the same pixels."""
    if frame_format not in get_args(FrameFormat):
        raise InvalidInputError(
            f"frame_format: expected one of {', '.join(get_args(FrameFormat))}, got {frame_format!r}"
        )
    return image_file_bytes if frame_format == "png" else _jpeg_or_file_bytes


def open_source(
    video: VideoSource, frame_format: FrameFormat | str, num_frames: int | None
) -> FrameSource:
    """The frames of whatever a video is given as."""
    encode = encoder(frame_format)
    source: FrameSource
    if isinstance(video, str | os.PathLike):
        path = Path(os.fspath(video)).expanduser()
        source = (
            PictureFrames(pictures_of(path), encode) if path.is_dir() else FileFrames(path, encode)
        )
    elif isinstance(video, bytes | bytearray | memoryview):
        source = FileFrames(bytes(video), encode)
    elif isinstance(video, np.ndarray):
        if video.ndim not in (3, 4):
            raise InvalidInputError(
                f"video: expected pixels [T, H, W, 3] or [T, H, W], got {list(video.shape)}"
            )
        source = PictureFrames(cast("Sequence[ImageSource]", video), encode)
    elif isinstance(video, Sequence):
        source = PictureFrames(cast("Sequence[ImageSource]", video), encode)
    elif isinstance(video, Iterable):
        return LiveFrames(iter(video), encode, num_frames)
    else:
        raise InvalidInputError(
            "video: expected a path, a video file's bytes, a folder, a sequence or an iterator of images, got"
            f" {type(video).__name__}"
        )
    if num_frames is not None and num_frames != source.num_frames:
        raise InvalidInputError(
            f"num_frames: this video has {source.num_frames}, got {num_frames}; say it for iterators only"
        )
    return source


def pictures_of(folder: Path) -> list[Path]:
    """A folder's pictures, in order of the numbers in their names: 2.jpg before 10.jpg."""
    pictures = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in _PICTURE_ENDINGS and not path.name.startswith(".")
    ]
    if not pictures:
        raise InvalidInputError(f"video: the folder {folder} has no pictures")
    return sorted(pictures, key=lambda path: _natural(path.name))


def blocking_iterator(
    images: AsyncIterator[ImageSource], loop: asyncio.AbstractEventLoop
) -> Iterator[ImageSource]:
    """An asynchronous iterator of a loop, for another thread to go through."""

    async def advance() -> list[ImageSource]:
        try:
            return [await anext(images)]
        except StopAsyncIteration:
            return []

    while got := asyncio.run_coroutine_threadsafe(advance(), loop).result():
        yield got[0]


def _natural(name: str) -> list[tuple[int, str]]:
    """Text and numbers of a name in turns, numbers comparing as numbers."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _jpeg_or_file_bytes(image: ImageSource) -> bytes:
    """JPEG of pixels; a file's own bytes, untouched."""
    if isinstance(image, np.ndarray):
        image = Image.fromarray(np.ascontiguousarray(grey_or_rgb(image)))
    if not isinstance(image, Image.Image):
        return image_file_bytes(image)
    if image.width == 0 or image.height == 0:
        raise InvalidInputError(f"video: expected pixels, got a PIL image of size {image.size}")
    buffer = io.BytesIO()
    image.convert("L" if image.mode in ("1", "L") else "RGB").save(buffer, "JPEG", **_JPEG_OPTIONS)
    return buffer.getvalue()
