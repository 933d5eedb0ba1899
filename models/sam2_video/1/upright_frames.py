"""What a video's display matrix asks of its stored frames to become upright."""

from __future__ import annotations

import struct

from PIL import Image
from video_errors import InvalidStepError

# a, b, c, d of the matrix: stored (x, y) is shown at (a x + c y, b x + d y), y downwards, up to a shift.
TO_UPRIGHT: dict[tuple[int, int, int, int], Image.Transpose | None] = {
    (1, 0, 0, 1): None,
    (0, -1, 1, 0): Image.Transpose.ROTATE_90,
    (-1, 0, 0, -1): Image.Transpose.ROTATE_180,
    (0, 1, -1, 0): Image.Transpose.ROTATE_270,
    (-1, 0, 0, 1): Image.Transpose.FLIP_LEFT_RIGHT,
    (1, 0, 0, -1): Image.Transpose.FLIP_TOP_BOTTOM,
    (0, 1, 1, 0): Image.Transpose.TRANSPOSE,
    (0, -1, -1, 0): Image.Transpose.TRANSVERSE,
}
TURNING_SIDEWAYS = (
    Image.Transpose.ROTATE_90,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSPOSE,
    Image.Transpose.TRANSVERSE,
)
MATRIX = struct.Struct("<9i")
# What cosines and sines of right angles may be off by, of 1.
SLACK = 1e-3


def transposition_of(display_matrix: bytes | None) -> Image.Transpose | None:
    """How frames are turned or mirrored; None where they are not. The matrix is nine int32.

    Raises:
        InvalidStepError: by another angle than a multiple of 90 degrees.
    """
    if display_matrix is None or len(display_matrix) != MATRIX.size:
        return None
    a, b, _, c, d, *_ = MATRIX.unpack(display_matrix)
    largest = max(map(abs, (a, b, c, d)))
    parts = [
        0 if abs(part) <= SLACK * largest else (1 if part > 0 else -1) for part in (a, b, c, d)
    ]
    turned = (parts[0], parts[1], parts[2], parts[3])
    if turned not in TO_UPRIGHT:
        raise InvalidStepError(
            "video: expected frames that are shown turned by a multiple of 90 degrees, got a display matrix"
            f" of {a}, {b}, {c}, {d}"
        )
    return TO_UPRIGHT[turned]
