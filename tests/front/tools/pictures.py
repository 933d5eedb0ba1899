"""Pictures that no other test has sent: the server has not encoded them yet."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw


def fresh_picture(seed: int, width: int = 180, height: int = 120) -> bytes:
    """A disc on noise, as a PNG file; other seeds are other pictures."""
    noise = np.random.default_rng(seed).integers(0, 60, (height, width, 3), np.uint8)
    picture = Image.fromarray(noise)
    ImageDraw.Draw(picture).ellipse((60, 30, 120, 90), fill=(230, 200, 60))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


# Inside the disc.
DISC = (90.0, 60.0)
