"""Pillow's decoders, called by name, with errors for clients and samples of 8 bits as the result."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from image_errors import InvalidImageError
from PIL import (
    BmpImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

# Pillow's plugins for what we promise to read. Nothing else is ever tried on bytes from the wire.
READERS: dict[str, type[ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
}
SIXTEEN_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N")
PREMULTIPLIED_MODES = {"La": "LA", "RGBa": "RGBA"}

UInt8Array = npt.NDArray[np.uint8]


def read_header(file_format: str, data: bytes) -> ImageFile.ImageFile:
    """The picture whose size is known and whose samples are not decoded yet.

    Raises:
        InvalidImageError: a header that this format does not allow, or of a kind that is not read.
    """
    try:
        return READERS[file_format](io.BytesIO(data))
    except MemoryError:
        raise
    except Exception as error:  # Pillow's plugins raise whatever their parsing raises
        raise InvalidImageError(
            f"image: expected a complete {file_format} file, got one whose header is damaged or of a kind"
            " that is not read"
        ) from error


def decode_samples(picture: ImageFile.ImageFile, file_format: str) -> None:
    """Raises InvalidImageError where the samples are damaged or cut."""
    try:
        picture.load()
    except MemoryError:
        raise
    except Exception as error:  # the same
        is_cut = "truncated" in str(error)
        raise InvalidImageError(
            f"image: expected a complete {file_format} file, got one that"
            f" {_cut_text(file_format) if is_cut else 'does not decode: its picture data are damaged'}"
        ) from error


def to_rgb(picture: Image.Image) -> Image.Image:
    """Mode RGB; alpha is dropped, 16-bit samples are scaled over their full range."""
    if picture.mode in SIXTEEN_BIT_MODES:
        # Pillow clips these to 255 on conversion.
        picture = Image.fromarray(to_eight_bits(np.asarray(picture), 16))
    if picture.mode in PREMULTIPLIED_MODES:
        picture = picture.convert(PREMULTIPLIED_MODES[picture.mode])
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def to_eight_bits(samples: npt.NDArray[np.uint16], bits: int) -> UInt8Array:
    """Whole numbers of so many bits to 0..255 over their full range, rounded."""
    full = (1 << bits) - 1
    table = (np.arange(full + 1) * 255 + full // 2) // full
    # A table instead of arithmetic: no temporary array larger than the picture.
    return table.astype(np.uint8)[samples]


def _cut_text(file_format: str) -> str:
    if file_format == "JPEG":
        return "ends before its end marker (FF D9): it was cut, or its writer left the marker out"
    return "is cut short"
