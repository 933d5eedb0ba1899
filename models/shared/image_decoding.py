"""An image file's bytes to the upright RGB picture that people see, and that picture squashed to S x S."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

# Pillow's plugins for what we promise to read. Nothing else is ever tried on bytes from the wire.
ACCEPTED_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
# What the JPEG plugin calls a phone's JPEG with further pictures (depth, thumbnail) behind the first.
MULTI_PICTURE_JPEG = "MPO"
SIXTEEN_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N")
UNSUPPORTED_MODES = {"I": "32-bit integers", "F": "floating-point numbers"}

UInt8Array = npt.NDArray[np.uint8]


class InvalidImageError(ValueError):
    """The image cannot be used; the message names the tensor, what was expected and what came."""


def decode_image(data: bytes, max_image_bytes: int, max_image_pixels: int) -> Image.Image:
    """Decodes an encoded image file into an upright (EXIF-oriented) picture of mode RGB.

    Size limits are checked before memory is spent: the file's by its length, the picture's by its header.
    Alpha is dropped and 16-bit samples are scaled to 8 bits over their full range.

    Raises:
        InvalidImageError: empty, too large, not an accepted format, broken, or animated.
    """
    if not data:
        raise InvalidImageError("image: expected the bytes of an image file, got 0 bytes")
    if len(data) > max_image_bytes:
        raise InvalidImageError(
            f"image: expected at most {max_image_bytes} bytes (max_image_bytes), got {len(data)}"
        )
    picture = _open(data)
    _check_header(picture, max_image_pixels)
    try:
        picture.load()
        upright = ImageOps.exif_transpose(picture)
    except MemoryError:
        raise
    except Exception as error:
        raise InvalidImageError(
            f"image: expected a complete {picture.format} file, got one that does not decode: {error}"
        ) from error
    return _to_rgb(upright)


def crop_picture(picture: Image.Image, box_xyxy: tuple[int, int, int, int]) -> Image.Image:
    """The part x0, y0, x1, y1 of an upright picture; raises InvalidImageError where it is none."""
    x0, y0, x1, y1 = box_xyxy
    width, height = picture.size
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise InvalidImageError(
            f"image: expected a crop_box x0, y0, x1, y1 within its {width}x{height} pixels, got"
            f" {', '.join(map(str, box_xyxy))}"
        )
    return picture.crop(box_xyxy)


def resize_to_square(picture: Image.Image, side: int) -> UInt8Array:
    """Squashes an RGB picture to uint8 [3, side, side] with an antialiased bilinear filter.

    Source: `SAM2Transforms` of the SAM 2 repository resizes the same way, in floating point. So does this,
    and it rounds once, at the end: Pillow's own resize of 8-bit pictures rounds between its two passes
    too, which costs two to three times the error in the masks.
    """
    planes = (
        channel.convert("F").resize((side, side), Image.Resampling.BILINEAR)
        for channel in picture.split()
    )
    return np.stack([np.rint(np.asarray(plane)).astype(np.uint8) for plane in planes])


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=ACCEPTED_FORMATS)
    except UnidentifiedImageError as error:
        raise InvalidImageError(
            f"image: expected a JPEG, PNG, WebP, BMP or TIFF file, got {len(data)} bytes that are none"
            f" of them (they begin with {data[:8].hex(' ')})"
        ) from error
    except MemoryError:
        raise
    except Exception as error:
        raise InvalidImageError(
            f"image: expected an image file with a sound header, got: {error}"
        ) from error


def _check_header(picture: Image.Image, max_image_pixels: int) -> None:
    width, height = picture.size
    if width < 1 or height < 1:
        raise InvalidImageError(f"image: expected at least 1x1 pixel, got {width}x{height}")
    if width * height > max_image_pixels:
        raise InvalidImageError(
            f"image: expected at most {max_image_pixels} pixels (max_image_pixels), got"
            f" {width}x{height} = {width * height}"
        )
    try:
        frames = getattr(picture, "n_frames", 1)
    except Exception as error:
        raise InvalidImageError(f"image: expected a sound file, got: {error}") from error
    if frames > 1 and picture.format != MULTI_PICTURE_JPEG:
        raise InvalidImageError(
            f"image: expected one picture, got an animated or multi-page {picture.format} of {frames}"
        )
    if picture.mode in UNSUPPORTED_MODES:
        raise InvalidImageError(
            "image: expected samples of 8 or 16 bits, got"
            f" {UNSUPPORTED_MODES[picture.mode]} in a {picture.format} file"
        )


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode in SIXTEEN_BIT_MODES:
        # Pillow clips these to 255 on conversion; people mean the full range.
        samples = np.asarray(picture).astype(np.uint32)
        picture = Image.fromarray(((samples * 255 + 32767) // 65535).astype(np.uint8), mode="L")
    return picture if picture.mode == "RGB" else picture.convert("RGB")
