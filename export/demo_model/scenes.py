"""Procedural scenes of the demo model's domain: distinct objects on a background.

The domain is stated here, once, for training and for held-out scenes alike: coins, pills, seeds,
cells. An object differs from what lies under it by at least `contrast` (drawn per scene from
28..70 of 255 in its strongest channel, before light, blur and noise); objects touch in about one
scene in five and overlap a little in one in twenty; what covers less than 0.15 % of the image is
debris and carries no label.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from export.demo_model.camera import photograph
from export.demo_model.fields import (
    ByteImage,
    FloatImage,
    Points,
    as_floats,
    fractal_noise,
    grain,
    random_colour,
    stripes,
)
from export.demo_model.outlines import fill_outline, make_outline, random_family
from export.demo_model.surfaces import (
    Look,
    distinct_colour,
    object_colour,
    paint_surface,
    random_look,
)

LEAST_LABELLED_AREA = 0.0015  # share of the image
TRAINING_STREAM, HELDOUT_STREAM = 1, 2  # first word of a scene's seed: the two never meet


@dataclass(frozen=True)
class Scene:
    """What the objects of one scene have in common; lengths in pixels."""

    width: int
    height: int
    grey: bool
    background: Points
    contrast: float
    looks: tuple[Look, ...]
    families: tuple[str, ...]
    object_count: int
    radius: float
    radius_spread: float
    layout: str
    gap: float
    overlap: float
    edge_blur: float
    shadow: tuple[float, float, float, float] | None  # darkness, blur, offset x, offset y (radii)

    @property
    def scale(self) -> float:
        return float(np.sqrt(self.width * self.height))


def _random_scene(rng: np.random.Generator, size: int) -> Scene:
    aspect = np.exp(rng.uniform(-0.5, 0.5))
    width, height = int(size * aspect**0.5), int(size * aspect**-0.5)
    scale = float(np.sqrt(width * height))
    grey = bool(rng.random() < 0.45)
    background = random_colour(rng, grey)
    tone = rng.random()
    if tone < 0.3:
        background = background * 0.4
    elif tone < 0.6:
        background = 255 - (255 - background) * 0.45
    if rng.random() < 0.17:
        count, diameter = int(rng.integers(1, 4)), np.exp(rng.uniform(np.log(0.3), np.log(0.85)))
    else:
        diameter = np.exp(rng.uniform(np.log(0.06), np.log(0.4)))
        count = int(np.clip(rng.integers(3, 31), 3, max(3, 0.65 / diameter**2)))
    contrast = rng.uniform(28, 70)
    light_angle = rng.uniform(0, 2 * np.pi)
    same_kind = bool(rng.random() < 0.7)
    looks = []
    for _ in range(1 if same_kind else int(rng.integers(2, 6))):
        colour = distinct_colour(rng, grey, background, contrast)
        if rng.random() < 0.18:  # as faint as the scene allows
            colour = background + rng.choice([-1, 1]) * contrast * rng.uniform(1, 1.6)
        looks.append(random_look(rng, np.clip(colour, 5, 250), grey, light_angle))
    kinds = 1 if same_kind else 4
    closeness = rng.random()
    shadow_angle, shadow_length = rng.uniform(0, 2 * np.pi), rng.uniform(0.04, 0.3)
    shadow = (
        rng.uniform(0.15, 0.55),
        rng.uniform(0.03, 0.2),
        shadow_length * np.cos(shadow_angle),
        shadow_length * np.sin(shadow_angle),
    )
    return Scene(
        width=width,
        height=height,
        grey=grey,
        background=background,
        contrast=contrast,
        looks=tuple(looks),
        families=tuple(random_family(rng) for _ in range(kinds)),
        object_count=count,
        radius=0.5 * scale * float(diameter),
        radius_spread=float(rng.choice([0.03, 0.12, 0.3])),
        layout=str(rng.choice(["anywhere", "grid", "cluster"], p=[0.55, 0.22, 0.23])),
        gap=0.0 if closeness < 0.2 else rng.uniform(0.006, 0.03) * scale,
        overlap=0.12 if closeness < 0.05 else 0.0,
        edge_blur=rng.uniform(0.3, 1.1) * scale / 256 if rng.random() < 0.4 else 0.0,
        shadow=shadow if rng.random() < 0.4 else None,
    )


def _paint_background(rng: np.random.Generator, scene: Scene) -> FloatImage:
    height, width = scene.height, scene.width
    image = np.empty((height, width, 3), np.float32)
    image[:] = scene.background
    strength, kind = rng.uniform(0.3, 1), rng.random()
    if kind < 0.3:
        image += (strength * 20 * fractal_noise(rng, height, width))[..., None]
    elif kind < 0.45:
        sigma_px = rng.uniform(0.5, 1.5) * scene.scale / 256
        image += (strength * 8 * grain(rng, height, width, sigma_px))[..., None]
    elif kind < 0.55:
        bend = rng.uniform(0, 1.2) * fractal_noise(rng, height, width, 2, 2)
        image += (strength * 13 * stripes(rng, height, width, rng.uniform(5, 25), bend))[..., None]
    elif kind < 0.65 and not scene.grey:
        clouds = [strength * 20 * fractal_noise(rng, height, width, 3, 3) for _ in range(3)]
        image += np.stack(clouds, -1)
    for _ in range(int(rng.integers(1, 4)) if rng.random() < 0.15 else 0):
        image += _smudge(rng, scene)[..., None]
    return image


def _smudge(rng: np.random.Generator, scene: Scene) -> FloatImage:
    """Unlabelled clutter: a faint line or a soft stain, [H, W]."""
    mark = np.zeros((scene.height, scene.width), np.uint8)
    frame = np.array([scene.width, scene.height])
    start, end = rng.uniform(0, 1, (2, 2)) * frame
    if rng.random() < 0.5:
        ends = [(int(x), int(y)) for x, y in (start, end)]
        cv2.line(mark, ends[0], ends[1], 255, max(1, int(scene.scale * 0.006)), cv2.LINE_AA)
    else:
        fill_outline(mark, make_outline(rng, "blob") * scene.scale * rng.uniform(0.1, 0.4) + start)
        mark = cv2.GaussianBlur(mark, (0, 0), 0.04 * scene.scale)
    return as_floats(rng.uniform(-22, 22) * mark / 255)


@dataclass(frozen=True)
class _Window:
    """Where a box of h x w pixels at (left, top) meets the image."""

    on_image: tuple[slice, slice]
    on_box: tuple[slice, slice]


def _window(scene: Scene, left: int, top: int, box_hw: tuple[int, int]) -> _Window:
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + box_hw[1], scene.width), min(top + box_hw[0], scene.height)
    x1, y1 = max(x0, x1), max(y0, y1)
    return _Window(
        (slice(y0, y1), slice(x0, x1)), (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
    )


class _Placer:
    """Finds free places for objects."""

    def __init__(self, rng: np.random.Generator, scene: Scene) -> None:
        self._rng, self._scene = rng, scene
        self._columns = int(np.ceil(scene.object_count**0.5))
        self._cells = list(rng.permutation(self._columns**2))
        self._discs: list[tuple[Points, float]] = []

    def _candidate(self, radius: float, attempt: int) -> Points:
        rng, frame = self._rng, np.array([self._scene.width, self._scene.height])
        if self._scene.layout == "grid" and attempt == 0 and self._cells:
            row, column = divmod(int(self._cells.pop()), self._columns)
            jitter = rng.normal(0, 0.06, 2)
            return np.asarray((np.array([column, row]) + 0.5 + jitter) / self._columns * frame)
        if self._scene.layout == "cluster" and self._discs and rng.random() < 0.7:
            centre, other_radius = self._discs[int(rng.integers(len(self._discs)))]
            angle = rng.uniform(0, 2 * np.pi)
            reach = (other_radius + radius) * rng.uniform(0.9, 1.15) + self._scene.gap
            return centre + reach * np.array([np.cos(angle), np.sin(angle)])
        return rng.uniform(0, 1, 2) * frame

    def place(self, labels: ByteImage, coverage: ByteImage, radius: float) -> _Window | None:
        """The window where the object lies far enough from the others, or None."""
        rng, frame = self._rng, np.array([self._scene.width, self._scene.height], np.float64)
        reach = 2 * int(self._scene.gap) + 1
        wide = coverage if reach == 1 else cv2.dilate(coverage, np.ones((reach, reach), np.uint8))
        area = int((coverage > 127).sum())
        for attempt in range(14):
            margin = np.minimum(radius * (1.02 if rng.random() < 0.92 else 0.4), frame / 2)
            centre = np.clip(self._candidate(radius, attempt), margin, frame - margin)
            left, top = (int(v) for v in centre - np.array(coverage.shape[::-1]) / 2)
            window = _window(self._scene, left, top, coverage.shape)
            taken = labels[window.on_image][wide[window.on_box] > 127] > 0
            if (
                taken.sum() <= self._scene.overlap * area
                and (coverage[window.on_box] > 127).sum() > area / 3
            ):
                self._discs.append((centre, radius))
                return window
        return None


def _cast_shadow(scene: Scene, image: FloatImage, alpha: FloatImage, radius: float) -> None:
    """Darken `image` [H, W, 3] in place beside the object whose mask is `alpha` [H, W]."""
    if scene.shadow is None:
        return
    darkness, blur, offset_x, offset_y = scene.shadow
    shift = np.array([[1, 0, offset_x * radius], [0, 1, offset_y * radius]], np.float32)
    kernel = 2 * int(blur * radius) + 1
    cast = cv2.blur(cv2.warpAffine(alpha, shift, (scene.width, scene.height)), (kernel, kernel))
    image *= (1 - darkness * cast)[..., None]


def _paint_object(
    rng: np.random.Generator,
    scene: Scene,
    placer: _Placer,
    image: FloatImage,
    labels: ByteImage,
    label: int,
) -> None:
    radius = scene.radius * np.exp(rng.normal(0, scene.radius_spread))
    radius = float(np.clip(radius, 0.03 * scene.scale, 0.46 * scene.scale))
    family = scene.families[int(rng.integers(len(scene.families)))]
    outline = make_outline(rng, family) * radius
    border = 4 + int(scene.gap)
    corner = outline.min(0) - border
    box_w, box_h = (int(v) for v in np.ceil(outline.max(0) - corner) + border)
    coverage = np.zeros((box_h, box_w), np.uint8)
    fill_outline(coverage, outline - corner)
    window = placer.place(labels, coverage, radius)
    if window is None:
        return
    inside = coverage[window.on_box] > 127
    look = scene.looks[int(rng.integers(len(scene.looks)))]
    colour = object_colour(rng, look)
    under = image[window.on_image][inside].mean(0)
    if np.abs(colour - under).max() < scene.contrast:  # the domain's promise
        side = np.where(under > 127, -1.0, 1.0) if rng.random() < 0.5 else np.sign(colour - under)
        colour = under + side * scene.contrast
    alpha = as_floats(coverage / 255)
    if scene.edge_blur:
        alpha = as_floats(cv2.GaussianBlur(alpha, (0, 0), scene.edge_blur))
    on_image = np.zeros(labels.shape, np.float32)
    on_image[window.on_image] = alpha[window.on_box]
    _cast_shadow(scene, image, on_image, radius)
    surface = paint_surface(rng, look, colour, coverage)[window.on_box]
    weight = alpha[window.on_box][..., None]
    patch = image[window.on_image]
    patch += weight * (surface - patch)
    labels[window.on_image][inside] = label


def _drop_debris(labels: ByteImage) -> ByteImage:
    """Labels below the least area become background; the rest are renumbered 1..n."""
    areas = np.bincount(labels.ravel(), minlength=256)
    kept = (areas >= LEAST_LABELLED_AREA * labels.size) & (np.arange(256) > 0)
    renumbered = np.where(kept, np.cumsum(kept), 0).astype(np.uint8)
    return np.asarray(renumbered[labels])


def make_scene(rng: np.random.Generator, size: int = 256) -> tuple[ByteImage, ByteImage]:
    """One scene: RGB image uint8 [size, size, 3] and labels uint8 [size, size].

    Label 0 is background, 1..n are the objects' visible pixels. Scenes are made with an aspect
    ratio of up to 1.65 and squashed to the square, as the server squashes photographs.
    """
    scene = _random_scene(rng, size)
    image = _paint_background(rng, scene)
    labels = np.zeros((scene.height, scene.width), np.uint8)
    placer = _Placer(rng, scene)
    for label in range(1, scene.object_count + 1):
        _paint_object(rng, scene, placer, image, labels, label)
    picture = photograph(rng, image, scene.grey, size)
    squashed = cv2.resize(labels, (size, size), interpolation=cv2.INTER_NEAREST)
    return picture, _drop_debris(squashed)


def seeded_scene(stream: int, seed: int, index: int, size: int) -> tuple[ByteImage, ByteImage]:
    """Scene `index` of one of the two streams; the same arguments give the same scene."""
    return make_scene(np.random.default_rng([stream, seed, index]), size)
