"""Photographs that ship with scikit-image, as image files of the kinds that people send, and made ones."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import skimage
from PIL import Image

DATA = Path(skimage.__file__).parent / "data"


def photograph(name: str) -> bytes:
    """A file of scikit-image's data folder, untouched."""
    return (DATA / name).read_bytes()


def encoded(picture: Image.Image, file_format: str, **options: object) -> bytes:
    """A picture as an image file."""
    buffer = io.BytesIO()
    picture.save(buffer, format=file_format, **options)
    return buffer.getvalue()


def opened(data: bytes) -> Image.Image:
    """An image file as a picture, not yet upright."""
    return Image.open(io.BytesIO(data))


def of_many_shapes() -> dict[str, bytes]:
    """By what is particular about each; sizes are width x height."""
    wide = opened(photograph("motorcycle_left.png")).resize((4000, 2699), Image.Resampling.LANCZOS)
    return {
        "small, odd width (451x300)": photograph("chelsea.png"),
        "landscape (600x400)": photograph("coffee.png"),
        "portrait, grey (550x660)": photograph("cell.png"),
        "4000 px wide": encoded(wide, "JPEG", quality=92),
        "square": photograph("astronaut.png"),
        "large (1000x872)": photograph("hubble_deep_field.jpg"),
    }


def picture_of_discs(seed: int) -> bytes:
    """A PNG of bright discs, another for each seed."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:120, 0:160]
    pixels = rng.integers(0, 60, (120, 160)).astype(np.uint8)
    for x, y, radius in zip(*rng.integers((15, 15, 8), (145, 105, 22), (6, 3)).T, strict=True):
        pixels[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = rng.integers(150, 255)
    return encoded(Image.fromarray(pixels), "PNG")
