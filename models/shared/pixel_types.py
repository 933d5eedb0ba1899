"""What `resized_image` may hold (the encoder's graph decides): Triton types, and how pixels become them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]

# FP16 is finest around zero: with grey 128 there, it is a 32nd of a level off at most, at black and white.
FP16_ZERO = 128


@dataclass(frozen=True)
class PixelType:
    """`of` makes pixels of grey levels, which it may overwrite, in any shape."""

    dtype: npt.DTypeLike
    of: Callable[[Float32Array], npt.NDArray[Any]]


def _fp16(levels: Float32Array) -> npt.NDArray[np.float16]:
    """Grey levels less 128. (OpenCV rounds like numpy, to the nearest, in a sixth of the time.)"""
    levels -= FP16_ZERO
    halves: npt.NDArray[np.float16] = cv2.convertFp16(levels.reshape(1, -1)).view(np.float16)
    return halves.reshape(levels.shape)


def _uint8(levels: Float32Array) -> npt.NDArray[np.uint8]:
    """Whole grey levels: half of the bytes, and 0.25 of a level off on average."""
    return np.rint(levels, out=levels).astype(np.uint8)


GREY_LEVELS = PixelType(np.float32, lambda levels: levels)
PIXEL_TYPES: Mapping[str, PixelType] = {
    "TYPE_FP16": PixelType(np.float16, _fp16),
    "TYPE_UINT8": PixelType(np.uint8, _uint8),
}
# By their bytes, where a parameter says what the encoder takes.
TYPE_OF_BYTES = {2: "TYPE_FP16", 1: "TYPE_UINT8"}
