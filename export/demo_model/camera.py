"""The camera: uneven light, tone, blur, noise, JPEG, and the squash to a square."""

from __future__ import annotations

import cv2
import numpy as np

from export.demo_model.fields import ByteImage, FloatImage, as_floats, illumination, pixel_grid


def photograph(rng: np.random.Generator, image: FloatImage, grey: bool, size: int) -> ByteImage:
    """Turn painted light, float [H, W, 3], into an RGB picture, uint8 [size, size, 3]."""
    height, width = image.shape[:2]
    if rng.random() < 0.6:
        image = image * (1 + rng.uniform(0.05, 0.5) * illumination(rng, height, width))[..., None]
    if rng.random() < 0.35:
        image = image + (rng.uniform(10, 55) * illumination(rng, height, width))[..., None]
    if rng.random() < 0.3:
        x, y = pixel_grid(height, width)
        off_axis = (x / width - 0.5) ** 2 + (y / height - 0.5) ** 2
        image = image * (1 - rng.uniform(0.2, 1.2) * off_axis)[..., None]
    highlights = float(np.percentile(image[::4, ::4], 98))
    if highlights > 248:  # as automatic exposure does: objects must not drown in white
        image = image * (248 / highlights)
    if rng.random() < 0.35:
        image = 255 * np.clip(image / 255, 0, 1) ** rng.uniform(0.65, 1.6)
    if rng.random() < 0.45:
        image = cv2.GaussianBlur(as_floats(image), (0, 0), rng.uniform(0.3, 1.3) * size / 256)
    if rng.random() < 0.6:
        channels = 1 if grey else 3
        noise = rng.standard_normal((height, width, channels), dtype=np.float32)
        image = image + noise * rng.uniform(1, 13)
    picture = np.clip(image, 0, 255).astype(np.uint8)
    if rng.random() < 0.5:
        quality = int(rng.integers(35, 96))
        _, encoded = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        picture = cv2.imdecode(encoded, cv2.IMREAD_COLOR)[..., ::-1]
    squashed = cv2.resize(np.ascontiguousarray(picture), (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(squashed, dtype=np.uint8)
