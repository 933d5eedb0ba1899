"""What an object's surface looks like: colour, relief, rim, nucleus, grain."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from export.demo_model.fields import (
    ByteImage,
    FloatImage,
    Points,
    as_floats,
    fractal_noise,
    grain,
    pixel_grid,
    random_colour,
    stripes,
)
from export.demo_model.outlines import fill_outline, make_outline, random_family

_FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_TRIPLEX, cv2.FONT_HERSHEY_COMPLEX)
_FEATURES = {
    "relief": 0.25,  # coins
    "dome": 0.15,  # pills, beads, seeds
    "speckle": 0.13,
    "mottle": 0.14,
    "rim": 0.16,  # cell membranes, coin edges
    "core": 0.08,  # nuclei
    "stripes": 0.05,
    "halves": 0.04,  # two-coloured capsules
}


@dataclass(frozen=True)
class Look:
    """The appearance that objects of one kind share within a scene; lightness in 0..255."""

    colour: Points
    grey: bool
    features: frozenset[str]
    light_angle: float
    colour_jitter: float
    strength: float
    grain_size: float
    rim_lightness: float
    rim_width: float
    rim_raised: bool
    core_lightness: float
    core_depth: float
    stripe_count: float
    halves_colour: Points
    coloured_mottle: bool


def random_look(rng: np.random.Generator, colour: Points, grey: bool, light_angle: float) -> Look:
    count = int(rng.integers(0, 4))
    chosen = rng.choice(list(_FEATURES), count, replace=False, p=list(_FEATURES.values()))
    halves = np.repeat(rng.uniform(-60, 60), 3) if grey else rng.uniform(-80, 80, 3)
    return Look(
        colour=colour,
        grey=grey,
        features=frozenset(map(str, chosen)),
        light_angle=light_angle,
        colour_jitter=rng.uniform(0, 0.15),
        strength=rng.uniform(0.4, 1.25),
        grain_size=rng.uniform(0, 0.03),
        rim_lightness=rng.uniform(-55, 55),
        rim_width=rng.uniform(0.08, 0.3),
        rim_raised=bool(rng.random() < 0.5),
        core_lightness=rng.uniform(-60, 50),
        core_depth=rng.uniform(0.3, 0.65),
        stripe_count=rng.uniform(2, 8),
        halves_colour=halves,
        coloured_mottle=bool(rng.random() < 0.3),
    )


def object_colour(rng: np.random.Generator, look: Look) -> Points:
    """The look's colour as one object has it, [3]."""
    hue_shift = 0.0 if look.grey else look.colour_jitter * 60 * rng.standard_normal(3)
    return np.asarray(look.colour * np.exp(rng.normal(0, look.colour_jitter)) + hue_shift)


def _relief_height(rng: np.random.Generator, height: int, width: int) -> FloatImage:
    """A stamped surface: heads, lines, rings, letters over uneven metal."""
    longest = max(height, width)
    z = np.zeros((height, width), np.float32)
    kind = rng.random()
    if kind < 0.6:
        z += fractal_noise(rng, height, width, rng.uniform(3, 9), 3)
    for _ in range(int(rng.integers(1, 7)) if kind > 0.35 else 0):
        stamp = np.zeros((height, width), np.uint8)
        x, y = (int(v) for v in rng.uniform(0.25, 0.75, 2) * (width, height))
        thickness = max(1, int(longest * rng.uniform(0.015, 0.07)))
        shape = rng.random()
        if shape < 0.45:
            radius = longest * rng.uniform(0.08, 0.32)
            fill_outline(stamp, make_outline(rng, random_family(rng)) * radius + (x, y))
        elif shape < 0.65:
            end_x, end_y = (int(v) for v in rng.uniform(0.1, 0.9, 2) * (width, height))
            cv2.line(stamp, (x, y), (end_x, end_y), 255, thickness, cv2.LINE_AA)
        elif shape < 0.8:
            radius_px = int(longest * rng.uniform(0.15, 0.44))
            centre = (width // 2, height // 2)
            cv2.circle(stamp, centre, radius_px, 255, thickness, cv2.LINE_AA)
        else:
            letter, font = str(rng.choice(list("ABEKMPRS1258"))), _FONTS[rng.integers(3)]
            origin = (x - int(0.15 * longest), y + int(0.15 * longest))
            weight = max(1, longest // 22)
            cv2.putText(stamp, letter, origin, font, longest / 60, 255, weight, cv2.LINE_AA)
        z += cv2.GaussianBlur(as_floats(stamp / 255), (0, 0), max(0.4, 0.012 * longest))
    return z


def _shade(
    height_field: FloatImage, inside: NDArray[np.bool_], angle: float, amount: float
) -> FloatImage:
    """Light from one side on a height field: lightness of about ±`amount`."""
    slope_y, slope_x = np.gradient(height_field)
    slope = slope_x * np.cos(angle) + slope_y * np.sin(angle)
    spread = slope[inside].std() + 1e-6 if inside.any() else 1.0
    return as_floats(amount * np.clip(slope / spread, -2.5, 2.5))


def paint_surface(
    rng: np.random.Generator, look: Look, colour: Points, coverage: ByteImage
) -> FloatImage:
    """RGB of one object over its box, [h, w, 3]; `coverage` [h, w] is its mask in 0..255."""
    height, width = coverage.shape
    longest = max(height, width)
    inside = coverage > 127
    framed = cv2.copyMakeBorder(inside.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT)
    depth = cv2.distanceTransform(framed, cv2.DIST_L2, 3)[1:-1, 1:-1]
    depth = as_floats(depth / (depth.max() + 1e-6))  # 0 at the edge, 1 at the deepest place
    angle = look.light_angle + rng.normal(0, 0.3)
    strength, features = look.strength, look.features

    lightness = np.zeros((height, width), np.float32)
    if "relief" in features:
        stamped = _relief_height(rng, height, width)
        lightness += _shade(stamped, inside, angle, strength * rng.uniform(14, 42))
    if "dome" in features:
        dome = as_floats(cv2.GaussianBlur(np.sqrt(depth), (0, 0), max(0.6, 0.05 * longest)))
        lightness += _shade(dome, inside, angle, strength * rng.uniform(8, 34))
    if "speckle" in features:
        sigma_px = 0.5 + look.grain_size * longest
        lightness += strength * rng.uniform(5, 16) * grain(rng, height, width, sigma_px)
    if "mottle" in features:
        clouds = fractal_noise(rng, height, width, rng.uniform(3, 8), 3)
        lightness += strength * rng.uniform(10, 42) * clouds
    if "rim" in features:
        lightness += look.rim_lightness * np.exp(-((depth / look.rim_width) ** 2))
        if look.rim_raised:
            plateau = as_floats(np.minimum(depth, look.rim_width * 1.5))
            lightness += _shade(plateau, inside, angle, 12)
    if "core" in features:
        lightness += look.core_lightness * np.clip((depth - look.core_depth) / 0.15, 0, 1)
    if "stripes" in features:
        lightness += strength * 20 * stripes(rng, height, width, look.stripe_count)

    surface = as_floats(colour) + lightness[..., None]
    if "halves" in features:
        x, y = pixel_grid(height, width)
        side = rng.uniform(0, 2 * np.pi)
        offset = (x - width / 2) * np.cos(side) + (y - height / 2) * np.sin(side)
        surface[offset > 0] += as_floats(look.halves_colour)
    if look.coloured_mottle and not look.grey:
        surface += np.stack([18 * fractal_noise(rng, height, width, 3, 2) for _ in range(3)], -1)
    return as_floats(surface)


def distinct_colour(
    rng: np.random.Generator, grey: bool, background: Points, least_contrast: float
) -> Points:
    """A colour that differs from the background by `least_contrast` in at least one channel."""
    for _ in range(20):
        colour = random_colour(rng, grey)
        if np.abs(colour - background).max() > least_contrast:
            return colour
    return (
        255 - background
        if np.abs(255 - 2 * background).max() > least_contrast
        else (background + np.where(background > 127, -1, 1) * (least_contrast + 10))
    )
