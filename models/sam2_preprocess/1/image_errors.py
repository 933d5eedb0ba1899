"""What can be wrong with an image file, and the limits that it is held against."""

from __future__ import annotations

from dataclasses import dataclass


class InvalidImageError(ValueError):
    """The image cannot be used; the message names the tensor, what was expected and what came."""


@dataclass(frozen=True)
class StructureLimits:
    """Bounds on what is cheap to send and dear to decode. config.pbtxt declares them, with their reasons.

    The values here are the ones of config.pbtxt (tested), for callers that have no configuration.
    """

    max_image_side: int = 1_000_000
    max_image_segments: int = 100_000
    max_jpeg_scans: int = 100
    max_tiff_directories: int = 64


def check_length(length: int, max_bytes: int) -> None:
    """Raises InvalidImageError where a file is empty or too large."""
    if length == 0:
        raise InvalidImageError("image: expected the bytes of an image file, got 0 bytes")
    if length > max_bytes:
        raise InvalidImageError(
            f"image: expected at most {max_bytes} bytes (max_image_bytes), got {length}"
        )


def check_size(width: int, height: int, max_pixels: int, max_side: int) -> None:
    """Holds a picture's size, as its header claims it, against the limits.

    Raises:
        InvalidImageError: no pixel at all, too many, or too many in one row or column.
    """
    if width < 1 or height < 1:
        raise InvalidImageError(f"image: expected at least 1x1 pixel, got {width}x{height}")
    if width * height > max_pixels:
        raise InvalidImageError(
            f"image: expected at most {max_pixels} pixels (max_image_pixels), got"
            f" {width}x{height} = {width * height}"
        )
    if max(width, height) > max_side:
        raise InvalidImageError(
            f"image: expected at most {max_side} pixels in a row or column (max_image_side), got"
            f" {width}x{height}"
        )


def check_segments(found: int, limits: StructureLimits, what: str) -> None:
    """Raises InvalidImageError where a file has more parts than are walked through."""
    if found > limits.max_image_segments:
        raise InvalidImageError(
            f"image: expected at most {limits.max_image_segments} {what} (max_image_segments), got more"
        )
