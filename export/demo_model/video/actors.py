"""What moves in a clip: an object painted once, and laid into each frame where its path has it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from export.demo_model.fields import ByteImage, FloatImage, Points, as_floats
from export.demo_model.outlines import fill_outline
from export.demo_model.recipe import Scene
from export.demo_model.surfaces import Look, object_colour, paint_surface
from export.demo_model.video.paths import Path

_BORDER = 5  # pixels of nothing around an object's outline, for its soft edge


@dataclass(frozen=True)
class Painted:
    """An object's looks over its box [h, w]: RGB, soft and hard mask, and its reach from the centre."""

    surface: FloatImage
    alpha: FloatImage
    coverage: FloatImage
    radius: float


@dataclass(frozen=True)
class Actor:
    """`label` 0 hides others and carries no label itself."""

    painted: Painted
    path: Path
    label: int


def paint(
    rng: np.random.Generator, scene: Scene, look: Look, outline: Points, contrast_to: Points
) -> Painted:
    """One object of a `look`; `outline` in pixels around its centre, [N, 2].

    It differs from `contrast_to`, RGB of what it lies on, by the scene's contrast.
    """
    half = np.ceil(np.abs(outline).max(0)).astype(int) + _BORDER
    coverage = np.zeros((2 * half[1] + 1, 2 * half[0] + 1), np.uint8)
    fill_outline(coverage, outline + half)
    colour = object_colour(rng, look)
    if np.abs(colour - contrast_to).max() < scene.contrast:
        side = np.where(contrast_to > 127, -1.0, 1.0)
        colour = contrast_to + side * scene.contrast
    surface = paint_surface(rng, look, colour, coverage)
    whole = as_floats(coverage / 255)
    alpha = whole
    if scene.edge_blur:
        alpha = as_floats(cv2.GaussianBlur(whole, (0, 0), scene.edge_blur))
    return Painted(surface, alpha, whole, float(np.hypot(*outline.T).max()))


def lay(
    actor: Actor,
    frame: int,
    *,
    image: FloatImage,
    labels: ByteImage,
    camera: tuple[Points, float],
    shadow: tuple[float, float, float, float] | None,
) -> float:
    """Draw the actor into `image` [H, W, 3] and `labels` [H, W], in place.

    `camera`: where its top left corner looks, and its zoom. Returns the area in pixels of the whole
    object, hidden and outside parts included.
    """
    painted, path = actor.painted, actor.path
    corner, zoom = camera
    scale = float(path.size[frame]) * zoom
    cosine, sine = scale * np.cos(path.turn[frame]), scale * np.sin(path.turn[frame])
    turn = np.array([[cosine, -sine], [sine, cosine]])
    box_centre = (np.array(painted.alpha.shape[::-1]) - 1) / 2
    centre = (path.centre[frame] - corner) * zoom
    reach = painted.radius * scale + _BORDER * scale
    whole_area = float(painted.coverage.sum()) * scale**2
    height, width = labels.shape
    x0, y0 = (int(v) for v in np.maximum(np.floor(centre - reach), 0))
    x1, y1 = (int(v) for v in np.minimum(np.ceil(centre + reach) + 1, (width, height)))
    if x1 <= x0 or y1 <= y0:
        return whole_area
    offset = centre - turn @ box_centre - (x0, y0)
    matrix = np.concatenate([turn, offset[:, None]], axis=1).astype(np.float32)
    size = (x1 - x0, y1 - y0)
    alpha = cv2.warpAffine(painted.alpha, matrix, size, flags=cv2.INTER_LINEAR)
    surface = cv2.warpAffine(
        painted.surface, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    coverage = cv2.warpAffine(painted.coverage, matrix, size, flags=cv2.INTER_LINEAR)
    patch = image[y0:y1, x0:x1]
    if shadow is not None:
        darkness, _, offset_x, offset_y = shadow
        shift = np.array([[1, 0, offset_x], [0, 1, offset_y]], np.float32)
        shift[:, 2] *= painted.radius * scale
        cast = cv2.blur(cv2.warpAffine(alpha, shift, size), (5, 5))
        patch *= (1 - darkness * cast)[..., None]
    patch += alpha[..., None] * (surface - patch)
    labels[y0:y1, x0:x1][coverage > 0.5] = actor.label
    return whole_area
