"""A picture squashed to S x S as Meta's two predictors do it."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

Resample = Literal["bilinear", "bicubic"]
RESAMPLES: tuple[Resample, ...] = ("bilinear", "bicubic")


def resize_to_square(
    picture: Image.Image, side: int, resample: Resample = "bilinear"
) -> npt.NDArray[np.uint8]:
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
