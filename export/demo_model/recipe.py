"""What a scene will look like, decided before anything is painted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from export.demo_model.fields import Points, random_colour
from export.demo_model.outlines import random_family
from export.demo_model.surfaces import Look, distinct_colour, random_look


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


def random_scene(rng: np.random.Generator, size: int) -> Scene:
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
