"""A picture squashed to S x S as Meta's two predictors do it: their names, and how frames of video are."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

Resample = Literal["bilinear", "bicubic"]
RESAMPLES: tuple[Resample, ...] = ("bilinear", "bicubic")


def bicubic_square(picture: Image.Image, side: int) -> npt.NDArray[np.uint8]:
    """An RGB picture squashed to uint8 [3, side, side] by Pillow, as the SAM 2 repository resizes frames."""
    square = picture.resize((side, side), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))
