"""A decoded picture as its file stores it, and how it is turned to be the one that people see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import nanoarrow
import numpy as np
import numpy.typing as npt
from image_errors import InvalidImageError
from PIL import Image

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
# The same as steps: stored columns backwards, stored rows backwards, then columns for rows.
COLUMNS_BACKWARDS, ROWS_BACKWARDS, COLUMNS_FOR_ROWS = (2, 3, 7, 8), (3, 4, 6, 7), (5, 6, 7, 8)


@dataclass(frozen=True)
class StoredPicture:
    """Of mode RGB. Turning 12 megapixels costs more than squashing them: what is squashed is turned last."""

    picture: Image.Image
    orientation: int

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height as people see them."""
        width, height = self.picture.size
        return (height, width) if self.orientation in COLUMNS_FOR_ROWS else (width, height)

    def upright(self) -> Image.Image:
        """The picture itself, turned."""
        turn = TO_UPRIGHT.get(self.orientation)
        return self.picture if turn is None else self.picture.transpose(turn)

    def stored_box(self, box_xyxy: Sequence[int]) -> tuple[int, int, int, int]:
        """Where the part x0, y0, x1, y1 of the upright picture is stored.

        Raises:
            InvalidImageError: it is no part of the picture.
        """
        x0, y0, x1, y1 = box_xyxy
        width, height = self.upright_size
        if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
            raise InvalidImageError(
                f"image: expected a crop_box x0, y0, x1, y1 within its {width}x{height} pixels, got"
                f" {', '.join(map(str, box_xyxy))}"
            )
        if self.orientation in COLUMNS_FOR_ROWS:
            x0, y0, x1, y1 = y0, x0, y1, x1
        width, height = self.picture.size
        if self.orientation in COLUMNS_BACKWARDS:
            x0, x1 = width - x1, width - x0
        if self.orientation in ROWS_BACKWARDS:
            y0, y1 = height - y1, height - y0
        return x0, y0, x1, y1

    def turn_planes(self, planes: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Planes [C, S, S] of stored pixels ► upright, contiguous."""
        if self.orientation in COLUMNS_BACKWARDS:
            planes = planes[:, :, ::-1]
        if self.orientation in ROWS_BACKWARDS:
            planes = planes[:, ::-1]
        if self.orientation in COLUMNS_FOR_ROWS:
            planes = planes.transpose(0, 2, 1)
        return np.ascontiguousarray(planes)


def pixels_of(picture: Image.Image) -> npt.NDArray[np.uint8]:
    """Pixels [H, W, 4] of a picture of mode RGB, not to be written to; the fourth sample means nothing.

    Pillow keeps them so, and shows them by Arrow's interface; a copy to [H, W, 3] takes it as long as
    decoding. It does not show pictures in several pieces of memory, which image_worker.py prevents.
    """
    try:
        samples = nanoarrow.c_array(picture).child(0).view().buffer(1)
    except ValueError:
        return np.asarray(picture.convert("RGBX"))
    return np.frombuffer(samples, np.uint8).reshape(picture.height, picture.width, 4)
