"""Where objects lie: anywhere, on a grid or in clusters, with the scene's gap between them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from export.demo_model.fields import ByteImage, Points
from export.demo_model.recipe import Scene


@dataclass(frozen=True)
class Window:
    """Where a box of h x w pixels at (left, top) meets the image."""

    on_image: tuple[slice, slice]
    on_box: tuple[slice, slice]


def window_at(scene: Scene, left: int, top: int, box_hw: tuple[int, ...]) -> Window:
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + box_hw[1], scene.width), min(top + box_hw[0], scene.height)
    x1, y1 = max(x0, x1), max(y0, y1)
    return Window(
        (slice(y0, y1), slice(x0, x1)), (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
    )


class Placer:
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
            return np.asarray(centre + reach * np.array([np.cos(angle), np.sin(angle)]))
        return np.asarray(rng.uniform(0, 1, 2) * frame)

    def place(self, labels: ByteImage, coverage: ByteImage, radius: float) -> Window | None:
        """The window where the object lies far enough from the others, or None."""
        rng, frame = self._rng, np.array([self._scene.width, self._scene.height], np.float64)
        reach = 2 * int(self._scene.gap) + 1
        wide = coverage if reach == 1 else cv2.dilate(coverage, np.ones((reach, reach), np.uint8))
        area = int((coverage > 127).sum())
        for attempt in range(14):
            margin = np.minimum(radius * (1.02 if rng.random() < 0.92 else 0.4), frame / 2)
            centre = np.clip(self._candidate(radius, attempt), margin, frame - margin)
            left, top = (int(v) for v in centre - np.array(coverage.shape[::-1]) / 2)
            window = window_at(self._scene, left, top, coverage.shape)
            taken = labels[window.on_image][wide[window.on_box] > 127] > 0
            if (
                taken.sum() <= self._scene.overlap * area
                and (coverage[window.on_box] > 127).sum() > area / 3
            ):
                self._discs.append((centre, radius))
                return window
        return None
