"""Masks drawn over their image."""

import colorsys
import io
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from triton_sam2._errors import InvalidInputError
from triton_sam2._inputs.images import ImageSource, grey_or_rgb, image_file_bytes

_ORIENTATION = 0x0112  # EXIF's tag, and what each of its values asks for
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
_GOLDEN_RATIO = 0.618034  # steps round the colour wheel by it never repeat and stay far apart


def upright_rgb(image: ImageSource) -> NDArray[np.uint8]:
    """[H, W, 3] pixels of an image as people see it, its EXIF orientation applied."""
    if isinstance(image, np.ndarray):
        pixels = grey_or_rgb(image)
        return pixels if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, axis=2)
    content = image_file_bytes(image)
    try:
        with Image.open(io.BytesIO(_without_texts(content))) as file:
            file.load()
            upright = _turned(file)
            if upright.mode.startswith("I"):  # 16 bits, which convert() clips instead of scaling
                return np.repeat((np.asarray(upright) >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
            return np.asarray(upright.convert("RGB"))
    except Exception as error:  # Pillow raises nearly anything at a file that it cannot read
        raise InvalidInputError(f"image: cannot draw on it: {error}") from error


def _without_texts(content: bytes) -> bytes:
    """A PNG file without its texts and colour profile, which Pillow refuses when they are large or broken."""
    if not content.startswith(_PNG_SIGNATURE):
        return content
    kept, at = [_PNG_SIGNATURE], len(_PNG_SIGNATURE)
    while at + 8 <= len(content):
        end = at + 12 + int.from_bytes(content[at : at + 4], "big")  # length, name, data, checksum
        if content[at + 4 : at + 8] not in _PNG_TEXTS:
            kept.append(content[at:end])
        at = end
    return b"".join(kept)


def _turned(file: Image.Image) -> Image.Image:
    """The image as its orientation says; nothing else in EXIF matters, however broken."""
    try:
        orientation = file.getexif().get(_ORIENTATION)
    except Exception:  # noqa: BLE001 - the same: metadata that cannot be read turns nothing
        orientation = None
    method = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return file if method is None else file.transpose(method)


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
