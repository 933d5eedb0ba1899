"""An image file's bytes to an RGB picture, and that picture, or a part of it, squashed to S x S."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from image_errors import InvalidImageError, StructureLimits, check_length, check_size
from image_files import recognise, refuse_several, without_metadata
from PIL import Image
from pillow_decoding import decode_samples, read_header, to_rgb
from pixel_types import GREY_LEVELS, PixelType
from square_pictures import RESAMPLES, Resample, bicubic_square
from stored_picture import StoredPicture, pixels_of
from tiff_samples import decode_tiff
from triangle_resize import resize_to_planes

__all__ = [
    "RESAMPLES",
    "InvalidImageError",
    "Resample",
    "StructureLimits",
    "decode_image",
    "decode_stored",
    "parse_resample",
    "squash",
]


def decode_image(
    data: bytes,
    max_image_bytes: int,
    max_image_pixels: int,
    limits: StructureLimits | None = None,
) -> Image.Image:
    """Like decode_stored, but turned upright."""
    return decode_stored(data, max_image_bytes, max_image_pixels, limits).upright()


def decode_stored(
    data: bytes,
    max_image_bytes: int,
    max_image_pixels: int,
    limits: StructureLimits | None = None,
) -> StoredPicture:
    """Decodes an encoded image file into a picture of mode RGB, and its EXIF orientation.

    Size and structure limits are checked before memory or time is spent: the file's by its length, the
    picture's by its header, scans and directories by counting them. Alpha is dropped; samples of other
    than 8 bits are scaled over their full range. Metadata are not looked at but for the orientation.

    Raises:
        InvalidImageError: empty, too large, not an accepted format, a layout that is not read, broken,
            animated, or more than the memory holds.
    """
    check_length(len(data), max_image_bytes)
    limits = limits or StructureLimits()
    file_format = recognise(data)
    try:
        if file_format == "TIFF":
            return StoredPicture(*decode_tiff(data, max_image_pixels, limits))
        return StoredPicture(*_decode(file_format, data, max_image_pixels, limits))
    except MemoryError as error:
        raise InvalidImageError(
            f"image: expected a picture that the memory for decoding holds, got a {file_format} file that"
            " needs more"
        ) from error


def squash(
    stored: StoredPicture,
    side: int,
    resample: Resample = "bilinear",
    crop_box: Sequence[int] | None = None,
    pixel_type: PixelType = GREY_LEVELS,
) -> npt.NDArray[Any]:
    """The upright picture, or its part x0, y0, x1, y1, squashed to [3, side, side], antialiased.

    bilinear: source `SAM2Transforms` of the SAM 2 repository, which resizes images in floating point; values
    are between whole grey levels.
    bicubic: Pillow's own resize of the 8-bit picture, as the SAM 2 repository resizes a video's frames; whole
    grey levels.

    Raises:
        InvalidImageError: the box is no part of the picture.
        ValueError: another filter.
    """
    if resample not in RESAMPLES:
        raise ValueError(f"resample: expected one of {', '.join(RESAMPLES)}, got {resample!r}")
    width, height = stored.upright_size
    box = stored.stored_box(crop_box or (0, 0, width, height))
    if resample == "bilinear":
        x0, y0, x1, y1 = box
        planes = resize_to_planes(pixels_of(stored.picture)[y0:y1, x0:x1], side, pixel_type)
        return stored.turn_planes(planes)
    # Pillow rounds between across and down: what is turned first is another picture.
    upright = StoredPicture(stored.picture.crop(box), stored.orientation).upright()
    return pixel_type.of(bicubic_square(upright, side).astype(np.float32))


def parse_resample(value: bytes) -> Resample:
    """The filter that a tensor names; raises InvalidImageError where it names none."""
    for resample in RESAMPLES:
        if value == resample.encode():
            return resample
    raise InvalidImageError(
        f"resample: expected one of {', '.join(RESAMPLES)}, got {bytes(value[:40])!r}"
    )


def _decode(
    file_format: str, data: bytes, max_pixels: int, limits: StructureLimits
) -> tuple[Image.Image, int]:
    file = without_metadata(file_format, data, limits)
    picture = read_header(file_format, file.data)
    check_size(*picture.size, max_pixels, limits.max_image_side)
    frames = int(getattr(picture, "n_frames", 1))
    if frames > 1:
        refuse_several(file_format, frames)
    decode_samples(picture, file_format)
    return to_rgb(picture), file.orientation
