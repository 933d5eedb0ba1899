"""An image file's bytes to the upright RGB picture that people see, and that picture squashed to S x S."""

from __future__ import annotations

from collections.abc import Sequence

from image_errors import InvalidImageError, StructureLimits, check_length, check_size
from image_files import recognise, refuse_several, without_metadata
from PIL import Image
from pillow_decoding import decode_samples, read_header, to_rgb
from square_pictures import RESAMPLES, Resample, resize_to_square
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
