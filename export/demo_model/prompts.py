"""Prompts from masks: where a person might click or draw a box.

Pixel (x, y) is named by its indices, as SAM 2 does: the half pixel is added in the model.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from export.demo_model.fields import FloatImage, as_floats

Mask = NDArray[np.bool_]
FOREGROUND, BACKGROUND, BOX_TOP_LEFT, BOX_BOTTOM_RIGHT, PADDING = 1, 0, 2, 3, -1


def depth_map(mask: Mask) -> FloatImage:
    """Distance of every pixel inside to the outside, which begins past the image's edge too."""
    framed = np.pad(mask.astype(np.uint8), 1)
    return as_floats(cv2.distanceTransform(framed, cv2.DIST_L2, 5)[1:-1, 1:-1])


def centre_click(mask: Mask) -> tuple[float, float]:
    """The pixel farthest from the outline, x and y."""
    y, x = np.unravel_index(int(np.argmax(depth_map(mask))), mask.shape)
    return float(x), float(y)


def draw_pixel(rng: np.random.Generator, weight: FloatImage) -> tuple[float, float]:
    """A pixel with probability proportional to `weight` [H, W], which must not be all zero."""
    cumulative = np.cumsum(weight, dtype=np.float64)
    index = int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))
    y, x = divmod(min(index, weight.size - 1), weight.shape[1])
    return float(x), float(y)


def inside_click(
    rng: np.random.Generator, mask: Mask, margin_px: float = 2.0
) -> tuple[float, float]:
    """A uniformly random pixel at least `margin_px` inside, or anywhere inside a thin mask."""
    depth = depth_map(mask)
    inner = depth > margin_px
    return draw_pixel(rng, as_floats(inner if inner.any() else mask))


def bounding_box(mask: Mask) -> tuple[float, float, float, float]:
    """x0, y0, x1, y1 of the outermost pixels, inclusive."""
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return float(x), float(y), float(x + width - 1), float(y + height - 1)


def correction_click(predicted: Mask, truth: Mask) -> tuple[float, float, int]:
    """x, y and label of the next click: the deepest place of the larger mistake.

    Foreground where something is missing, background where there is too much; a perfect mask is
    confirmed by a click at its centre.
    """
    missing, excess = depth_map(truth & ~predicted), depth_map(predicted & ~truth)
    if max(missing.max(), excess.max()) == 0:
        return *centre_click(truth), FOREGROUND
    worse, label = (missing, FOREGROUND) if missing.max() >= excess.max() else (excess, BACKGROUND)
    y, x = np.unravel_index(int(np.argmax(worse)), worse.shape)
    return float(x), float(y), label


def training_click(rng: np.random.Generator, mask: Mask) -> tuple[float, float]:
    """A click as people make it: mostly anywhere inside, sometimes near the centre."""
    kind = rng.random()
    if kind < 0.55:
        x, y = inside_click(rng, mask, margin_px=1.0)
    elif kind < 0.7:
        x, y = draw_pixel(rng, as_floats(mask))
    elif kind < 0.85:
        x, y = draw_pixel(rng, depth_map(mask) ** 2)
    else:
        x, y = centre_click(mask)
    return x + rng.uniform(-0.5, 0.5), y + rng.uniform(-0.5, 0.5)


def outside_click(rng: np.random.Generator, mask: Mask) -> tuple[float, float]:
    """A background click, mostly near the object."""
    near = cv2.blur(as_floats(mask), (61, 61)) + 0.003
    return draw_pixel(rng, near * ~mask + 1e-9)


def training_box(rng: np.random.Generator, mask: Mask) -> list[tuple[float, float]]:
    """Both corners of the box, in half of the cases drawn as sloppily as by hand."""
    x0, y0, x1, y1 = bounding_box(mask)
    if rng.random() < 0.5:
        spread = np.array([x1 - x0, y1 - y0] * 2) * 0.04
        jitter = np.clip(rng.normal(0, 1, 4) * spread, -6, 6)
        x0, y0, x1, y1 = np.clip(np.array([x0, y0, x1, y1]) + jitter, 0, len(mask) - 1)
    return [(float(x0), float(y0)), (float(x1), float(y1))]


def training_prompt(
    rng: np.random.Generator, kind: str, mask: Mask
) -> tuple[list[tuple[float, float]], list[int]]:
    """Coordinates and labels: `click` has one point, `box` two, `mixed` three with padding."""
    if kind == "click":
        return [training_click(rng, mask)], [FOREGROUND]
    if kind == "box":
        return training_box(rng, mask), [BOX_TOP_LEFT, BOX_BOTTOM_RIGHT]
    if kind != "mixed":
        raise ValueError(f"kind: expected click, box or mixed, got {kind!r}")
    if rng.random() < 0.35:
        points, labels = training_box(rng, mask), [BOX_TOP_LEFT, BOX_BOTTOM_RIGHT]
        extra = 1
    else:
        points, labels, extra = [training_click(rng, mask)], [FOREGROUND], int(rng.integers(0, 3))
    for _ in range(extra):
        foreground = bool(rng.random() < 0.45)
        points.append(training_click(rng, mask) if foreground else outside_click(rng, mask))
        labels.append(FOREGROUND if foreground else BACKGROUND)
    missing = 3 - len(points)
    return points + [(0.0, 0.0)] * missing, labels + [PADDING] * missing
