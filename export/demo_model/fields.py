"""Random smooth fields and colours: the raw material of the procedural scenes."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

FloatImage = NDArray[np.float32]
ByteImage = NDArray[np.uint8]
Points = NDArray[np.float64]

# Scenes are made in several worker processes: a thread pool in each would only fight over cores.
cv2.setNumThreads(1)


def as_floats(values: NDArray[Any]) -> FloatImage:
    return np.ascontiguousarray(values, dtype=np.float32)


def pixel_grid(height: int, width: int) -> tuple[FloatImage, FloatImage]:
    """x and y of every pixel, each [H, W]."""
    y, x = np.mgrid[0:height, 0:width]
    return as_floats(x), as_floats(y)


def value_noise(rng: np.random.Generator, height: int, width: int, cells: float) -> FloatImage:
    """Cubic interpolation of a coarse random grid with `cells` cells along the longer side."""
    longest = max(height, width)
    rows = max(2, int(cells * height / longest) + 1)
    columns = max(2, int(cells * width / longest) + 1)
    coarse = as_floats(rng.standard_normal((rows, columns)))
    return as_floats(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))


def fractal_noise(
    rng: np.random.Generator,
    height: int,
    width: int,
    cells: float | None = None,
    octaves: int | None = None,
) -> FloatImage:
    """Octaves of value noise, scaled so that the largest absolute value is 1."""
    cells = float(rng.uniform(2, 6)) if cells is None else cells
    octaves = int(rng.integers(2, 5)) if octaves is None else octaves
    roughness = rng.uniform(0.35, 0.7)
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        total += roughness**octave * value_noise(rng, height, width, cells * 2.1**octave)
    return as_floats(total / (np.abs(total).max() + 1e-6))


def grain(rng: np.random.Generator, height: int, width: int, sigma_px: float) -> FloatImage:
    """Blurred white noise with a standard deviation of about 1."""
    white = as_floats(rng.standard_normal((height, width)))
    blurred = cv2.GaussianBlur(white, (0, 0), max(sigma_px, 0.3))
    return as_floats(blurred / (blurred.std() + 1e-6))


def stripes(
    rng: np.random.Generator,
    height: int,
    width: int,
    waves: float,
    bend: FloatImage | float = 0.0,
) -> FloatImage:
    """A sine wave in a random direction, `waves` periods along the longer side, shifted by `bend`
    periods."""
    x, y = pixel_grid(height, width)
    angle = rng.uniform(0, 2 * np.pi)
    along = (x * np.cos(angle) + y * np.sin(angle)) / max(height, width)
    return as_floats(np.sin(2 * np.pi * (waves * along + bend)))


def illumination(rng: np.random.Generator, height: int, width: int) -> FloatImage:
    """Uneven light, roughly within -1..1: a ramp, a lamp, or slow clouds."""
    x, y = pixel_grid(height, width)
    kind = rng.random()
    if kind < 0.4:
        angle = rng.uniform(0, 2 * np.pi)
        ramp = (x / width - 0.5) * np.cos(angle) + (y / height - 0.5) * np.sin(angle)
        return as_floats(ramp / (np.abs(ramp).max() + 1e-6))
    if kind < 0.7:
        lamp_x, lamp_y = rng.uniform(0, 1, 2)
        return as_floats(1 - 1.6 * np.hypot(x / width - lamp_x, y / height - lamp_y))
    return fractal_noise(rng, height, width, cells=2, octaves=1)


def random_colour(rng: np.random.Generator, grey: bool) -> Points:
    """RGB in 0..255, [3]; a colour more often bright and muted than dark or garish."""
    if grey:
        return np.repeat(rng.uniform(10, 245), 3)
    hue = int(rng.integers(0, 180))
    saturation, value = 255 * rng.beta(1.1, 1.8), 255 * rng.beta(2.2, 1.5)
    hsv = np.array([[[hue, saturation, value]]], np.uint8)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0], dtype=np.float64)
