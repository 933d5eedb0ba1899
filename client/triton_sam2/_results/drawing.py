"""Masks drawn over their image."""

import colorsys
import io
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from triton_sam2._errors import InvalidInputError
from triton_sam2._inputs.images import ImageSource, image_file_bytes

_GOLDEN_RATIO = 0.618034  # steps round the colour wheel by it never repeat and stay far apart


def upright_rgb(image: ImageSource) -> NDArray[np.uint8]:
    """[H, W, 3] pixels of an image as people see it, its EXIF orientation applied."""
    if isinstance(image, np.ndarray) and image.ndim == 3:
        return image
    try:
        with Image.open(io.BytesIO(image_file_bytes(image))) as file:
            upright = ImageOps.exif_transpose(file)
            if upright.mode.startswith(
                "I"
            ):  # 16 bits, which convert() would clip instead of scaling
                return np.repeat((np.asarray(upright) >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
            return np.asarray(upright.convert("RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise InvalidInputError(f"image: cannot draw on it: {error}") from error


def draw_masks(
    image_rgb: NDArray[np.uint8], masks: Iterable[NDArray[np.uint8]], opacity: float = 0.5
) -> NDArray[np.uint8]:
    """[H, W, 3]: masks [H, W] over an image, later ones above, in colours of their own with an outline."""
    canvas = image_rgb.astype(np.float32)
    width = max(1, round(min(image_rgb.shape[:2]) / 300))
    for index, pixels in enumerate(masks):
        if pixels.shape != image_rgb.shape[:2]:
            raise InvalidInputError(
                f"image: expected {list(pixels.shape)} pixels like the masks, got {list(image_rgb.shape[:2])}"
            )
        mask = pixels.astype(bool)
        color = np.array(object_color(index), np.float32)
        canvas[mask] = (1 - opacity) * canvas[mask] + opacity * color
        canvas[_outline(mask, width)] = color
    return np.asarray(canvas.round(), np.uint8)


def object_color(index: int) -> tuple[int, int, int]:
    """An RGB colour for the object of this index, far from those before it."""
    red, green, blue = colorsys.hsv_to_rgb((0.6 + index * _GOLDEN_RATIO) % 1, 0.8, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)


def _outline(mask: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """The mask's pixels that lie within `width` pixels of its edge."""
    inner = mask
    for _ in range(width):
        padded = np.pad(inner, 1, mode="edge")
        inner = inner & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inner
