"""An image as people hold it ► the bytes of an image file, which is what the server takes."""

import io
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from triton_sam2._errors import InvalidInputError

ImageSource: TypeAlias = str | os.PathLike[str] | bytes | BinaryIO | NDArray[np.uint8] | Image.Image
"""A path; an image file's bytes, or the file itself, open for reading; pixels: uint8, [H, W, 3] RGB, [H, W]
or [H, W, 1] grey; or a PIL image, its pixels taken as they are (as SAM2ImagePredictor.set_image does)."""

_PNG_MODES = {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"}  # PIL's, as PNG keeps them without loss
_OTHER_MODES = {"CMYK", "HSV", "LAB", "PA", "RGBX", "RGBa", "YCbCr"}  # a conversion to RGB
_LONGEST_NAME = 200  # of a path in a message: a picture pasted as text would fill the screen


@dataclass(frozen=True)
class ImageHandle:
    """An image that the server knows, and its bytes in case the server forgets it."""

    image_id: str
    original_hw: tuple[int, int]  # height and width of the upright image, in pixels
    image_bytes: bytes | None = field(default=None, repr=False)
    is_named: bool = False  # whether the id was chosen by the client, not derived from the bytes


def image_file_bytes(image: ImageSource) -> bytes:
    """A file's own bytes, untouched; arrays and PIL images become PNG, which loses nothing."""
    if isinstance(image, str | os.PathLike):
        return _read_path(image)
    if isinstance(image, bytes | bytearray | memoryview):
        content = bytes(image)
        if not content:
            raise InvalidInputError("image: expected the bytes of an image file, got 0 bytes")
        return content
    if isinstance(image, np.ndarray):
        return _png_bytes(Image.fromarray(np.ascontiguousarray(grey_or_rgb(image))))
    if isinstance(image, Image.Image):
        return _pil_bytes(image)
    if hasattr(image, "read"):
        return _read_open_file(image)
    raise InvalidInputError(
        "image: expected a path, bytes, an open file, a numpy array or a PIL image, got "
        f"{type(image).__name__}"
    )


def grey_or_rgb(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Checked pixels, [H, W, 3] or [H, W]."""
    is_rgb = pixels.ndim == 3 and pixels.shape[2] in (1, 3)
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or is_rgb) or pixels.size == 0:
        raise InvalidInputError(
            "image: expected a uint8 array of shape [H, W, 3] (RGB), [H, W] or [H, W, 1] (grey), "
            f"got {pixels.dtype} {list(pixels.shape)}"
        )
    return pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels


def _read_path(path: str | os.PathLike[str]) -> bytes:
    name = str(os.fspath(path))
    shown = name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"
    if name.startswith("data:") or "://" in name:
        raise InvalidInputError(
            f"image: expected a path or an image file's bytes, got a URL ({shown}): fetch it, or decode its "
            "base64, and give the bytes"
        )
    try:
        content = Path(name).expanduser().read_bytes()
    except OSError as error:
        raise InvalidInputError(f"image: cannot read {shown}: {error.strerror}") from error
    except (ValueError, RuntimeError) as error:  # a NUL in the name; ~ of nobody
        raise InvalidInputError(f"image: cannot read {shown!r}: {error}") from error
    if not content:
        raise InvalidInputError(f"image: {shown} is empty")
    return content


def _read_open_file(file: Any) -> bytes:
    """All of an open file, from its beginning where it can go back there, as PIL reads one."""
    try:
        if hasattr(file, "seek") and (not hasattr(file, "seekable") or file.seekable()):
            file.seek(0)
        content = file.read()
    except (OSError, ValueError) as error:  # ValueError: closed, or text that is no text
        raise InvalidInputError(f"image: cannot read the open file: {error}") from error
    if not isinstance(content, bytes | bytearray):
        raise InvalidInputError(
            "image: expected a file opened in binary mode ('rb'), got one that reads "
            f"{type(content).__name__}"
        )
    if not content:
        raise InvalidInputError("image: the open file is empty")
    return bytes(content)


def _pil_bytes(image: Image.Image) -> bytes:
    try:
        if image.width == 0 or image.height == 0:
            raise InvalidInputError(f"image: expected pixels, got a PIL image of size {image.size}")
        if image.mode in _OTHER_MODES:
            return _png_bytes(image.convert("RGB"))
        if image.mode in _PNG_MODES:
            return _png_bytes(image)
    except (OSError, SyntaxError, ValueError) as error:  # PIL reads a file's pixels only now
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError(f"image: the PIL image cannot be read: {error}") from error
    raise InvalidInputError(
        "image: expected a PIL image of 8 or 16 bits, for example of mode RGB, L or I;16, got mode "
        f"{image.mode!r}"
    )


def _png_bytes(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    # Level 1: a third larger than the default, several times faster. No EXIF: coordinates refer to the pixels
    # as they lie in memory. No text, no profile: nothing but pixels is wanted.
    image.save(buffer, "PNG", compress_level=1, exif=b"", icc_profile=None, pnginfo=PngInfo())
    return buffer.getvalue()
