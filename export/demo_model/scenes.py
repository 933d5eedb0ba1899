"""Procedural scenes of the demo model's domain: distinct objects on a background.

The domain is stated here, once, for training and for held-out scenes alike: coins, pills, seeds,
cells. An object differs from what lies under it by at least `contrast` (drawn per scene from
28..70 of 255 in its strongest channel, before light, blur and noise); objects touch in about one
scene in five and overlap a little in one in twenty; what covers less than 0.15 % of the image is
debris and carries no label.
"""

from __future__ import annotations

import cv2
import numpy as np

from export.demo_model.camera import photograph
from export.demo_model.fields import (
    ByteImage,
    FloatImage,
    as_floats,
    fractal_noise,
    grain,
    stripes,
)
from export.demo_model.outlines import fill_outline, make_outline
from export.demo_model.placement import Placer
from export.demo_model.recipe import Scene, random_scene
from export.demo_model.surfaces import object_colour, paint_surface

LEAST_LABELLED_AREA = 0.0015  # share of the image
TRAINING_STREAM, HELDOUT_STREAM = 1, 2  # first word of a scene's seed: the two never meet


def paint_background(rng: np.random.Generator, scene: Scene) -> FloatImage:
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
    placer: Placer,
    *,
    image: FloatImage,
    labels: ByteImage,
    label: int,
) -> None:
    """Place and paint one object in `image` and `labels`, or leave both if there is no room."""
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
    scene = random_scene(rng, size)
    image = paint_background(rng, scene)
    labels = np.zeros((scene.height, scene.width), np.uint8)
    placer = Placer(rng, scene)
    for label in range(1, scene.object_count + 1):
        _paint_object(rng, scene, placer, image=image, labels=labels, label=label)
    picture = photograph(rng, image, scene.grey, size)
    squashed = cv2.resize(labels, (size, size), interpolation=cv2.INTER_NEAREST)
    return picture, _drop_debris(squashed)


def seeded_scene(stream: int, seed: int, index: int, size: int) -> tuple[ByteImage, ByteImage]:
    """Scene `index` of one of the two streams; the same arguments give the same scene."""
    return make_scene(np.random.default_rng([stream, seed, index]), size)
