"""An image file's bytes to the upright RGB picture that people see, and that picture squashed to S x S."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from image_errors import InvalidImageError, StructureLimits, check_length, check_size
from image_files import recognise, refuse_several, without_metadata
from PIL import Image
from pillow_decoding import decode_samples, read_header, to_rgb
from tiff_samples import decode_tiff

__all__ = [
    "RESAMPLES",
    "InvalidImageError",
    "Resample",
    "StructureLimits",
    "crop_picture",
    "decode_image",
    "parse_resample",
    "resize_to_square",
]

# What each EXIF orientation asks of the stored pixels to become upright.
TO_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Resample = Literal["bilinear", "bicubic"]
RESAMPLES: tuple[Resample, ...] = ("bilinear", "bicubic")
UInt8Array = npt.NDArray[np.uint8]


def decode_image(
    data: bytes,
    max_image_bytes: int,
    max_image_pixels: int,
    limits: StructureLimits | None = None,
) -> Image.Image:
    """Decodes an encoded image file into an upright (EXIF-oriented) picture of mode RGB.

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
            picture, orientation = decode_tiff(data, max_image_pixels, limits)
        else:
            picture, orientation = _decode(file_format, data, max_image_pixels, limits)
        turn = TO_UPRIGHT.get(orientation)
        return picture if turn is None else picture.transpose(turn)
    except MemoryError as error:
        raise InvalidImageError(
            f"image: expected a picture that the memory for decoding holds, got a {file_format} file that"
            " needs more"
        ) from error


def crop_picture(picture: Image.Image, box_xyxy: Sequence[int]) -> Image.Image:
    """The part x0, y0, x1, y1 of an upright picture; raises InvalidImageError where it is none."""
    x0, y0, x1, y1 = box_xyxy
    width, height = picture.size
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise InvalidImageError(
            f"image: expected a crop_box x0, y0, x1, y1 within its {width}x{height} pixels, got"
            f" {', '.join(map(str, box_xyxy))}"
        )
    return picture.crop((x0, y0, x1, y1))


def resize_to_square(
    picture: Image.Image, side: int, resample: Resample = "bilinear"
) -> UInt8Array:
    """Squashes an RGB picture to uint8 [3, side, side] with an antialiased filter.

    bilinear: source `SAM2Transforms` of the SAM 2 repository, which resizes images in floating point. So does
    this, and it rounds once, at the end: Pillow's own resize of 8-bit pictures rounds between its two passes
    too, which costs two to three times the error in the masks.
    bicubic: Pillow's own resize of the 8-bit picture, as the SAM 2 repository resizes a video's frames.

    Raises:
        ValueError: another filter.
    """
    if resample == "bicubic":
        square = picture.resize((side, side), Image.Resampling.BICUBIC)
        return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))
    if resample != "bilinear":
        raise ValueError(f"resample: expected one of {', '.join(RESAMPLES)}, got {resample!r}")
    planes = (
        channel.convert("F").resize((side, side), Image.Resampling.BILINEAR)
        for channel in picture.split()
    )
    return np.stack([np.rint(np.asarray(plane)).astype(np.uint8) for plane in planes])


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
