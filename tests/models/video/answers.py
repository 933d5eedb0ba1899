"""One answer about one frame, and how far two of them may be apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# The part of pixels that must agree in every answer; how near to 0 a score may be for its sign to be open.
PIXELS_EQUAL = 0.9995
SCORE_MARGIN = 0.01


@dataclass(frozen=True)
class Answer:
    """Object ids in order, mask logits [K, H, W] at the frame's size, object scores (None: not decoded)."""

    frame: int
    object_ids: list[int]
    logits: np.ndarray
    scores: list[float | None]

    @property
    def masks(self) -> np.ndarray:
        return self.logits > 0


@dataclass(frozen=True)
class Difference:
    """Of the worst answer: `pixels`, the part that differs; flips, objects whose presence does."""

    pixels: float
    flips: int
    worst: str

    @property
    def is_within_bounds(self) -> bool:
        return self.pixels <= 1 - PIXELS_EQUAL and self.flips == 0


def compare(expected: list[Answer], got: list[Answer]) -> Difference:
    """Raises AssertionError where answers are about other frames or objects, or in another order."""
    assert [(a.frame, a.object_ids) for a in got] == [(a.frame, a.object_ids) for a in expected]
    pixels, flips, worst = 0.0, 0, "nothing differs"
    for number, (theirs, ours) in enumerate(zip(expected, got, strict=True)):
        differing = float((theirs.masks != ours.masks).mean())
        flipped = sum(_flips(a, b) for a, b in zip(theirs.scores, ours.scores, strict=True))
        flips += flipped
        if differing > pixels or flipped:
            worst = (
                f"answer {number}, frame {theirs.frame}: scores {theirs.scores} and {ours.scores}"
            )
        pixels = max(pixels, differing)
    return Difference(pixels, flips, worst)


def _flips(expected: float | None, got: float | None) -> bool:
    if expected is None or got is None:
        return expected is not got
    return abs(expected) > SCORE_MARGIN and (expected > 0) != (got > 0)
