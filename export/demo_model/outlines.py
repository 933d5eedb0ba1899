"""Outlines of the scenes' objects: closed curves of about unit radius."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from export.demo_model.fields import ByteImage, Points

_ANGLES = np.linspace(0, 2 * np.pi, 72, endpoint=False)
_CIRCLE: Points = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)


def _stretch(points: Points, ratio: float) -> Points:
    return np.asarray(points * np.array([1.0, ratio]))


def _disc(rng: np.random.Generator) -> Points:
    return _stretch(_CIRCLE, rng.uniform(0.9, 1))


def _ellipse(rng: np.random.Generator) -> Points:
    return _stretch(_CIRCLE, rng.uniform(0.45, 0.95))


def _worn_disc(rng: np.random.Generator) -> Points:
    """A coin or a cell that is not quite round."""
    radius = np.ones_like(_ANGLES)
    for wave in range(2, 7):
        radius += rng.uniform(0, 0.08) * np.cos(wave * _ANGLES + rng.uniform(0, 2 * np.pi))
    return _stretch(_CIRCLE * radius[:, None], rng.uniform(0.65, 1))


def _blob(rng: np.random.Generator) -> Points:
    radius = np.ones_like(_ANGLES)
    roughness = rng.uniform(0.1, 0.38)
    for wave in range(2, int(rng.integers(4, 9))):
        swing = roughness / wave**0.7 * rng.standard_normal()
        radius += swing * np.cos(wave * _ANGLES + rng.uniform(0, 2 * np.pi))
    points = _CIRCLE * np.clip(radius, 0.3, None)[:, None]
    return np.asarray(points / np.abs(points).max())


def _polygon(rng: np.random.Generator) -> Points:
    corners = int(rng.integers(3, 9))
    angles = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    angles += rng.uniform(-0.8, 0.8, corners) / corners
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return _stretch(points * rng.uniform(0.8, 1.1, (corners, 1)), rng.uniform(0.5, 1))


def _tablet(rng: np.random.Generator) -> Points:
    """A superellipse: from a rounded square to a caplet."""
    power = 2 / rng.uniform(2.5, 10)
    return _stretch(np.sign(_CIRCLE) * np.abs(_CIRCLE) ** power, rng.uniform(0.3, 1))


def _bean(rng: np.random.Generator) -> Points:
    x, y = _CIRCLE[:, 0], _CIRCLE[:, 1] * rng.uniform(0.3, 0.5)
    return np.stack([x, y + rng.uniform(-0.5, 0.5) * (x**2 - 0.4)], axis=1)


def _seed(rng: np.random.Generator) -> Points:
    """Pointed at one end, like a sunflower or an apple seed."""
    x, y = _CIRCLE[:, 0], _CIRCLE[:, 1]
    taper = 1 - rng.uniform(0.2, 0.75) * (x + 1) / 2
    return np.stack([x, y * taper * rng.uniform(0.45, 0.8)], axis=1)


_MAKERS: dict[str, tuple[float, Callable[[np.random.Generator], Points]]] = {
    "disc": (0.25, _disc),
    "ellipse": (0.16, _ellipse),
    "worn_disc": (0.17, _worn_disc),
    "blob": (0.13, _blob),
    "polygon": (0.08, _polygon),
    "tablet": (0.09, _tablet),
    "bean": (0.06, _bean),
    "seed": (0.06, _seed),
}


def random_family(rng: np.random.Generator) -> str:
    weights = [weight for weight, _ in _MAKERS.values()]
    return str(rng.choice(list(_MAKERS), p=weights))


def make_outline(rng: np.random.Generator, family: str) -> Points:
    """A closed curve around the origin, [N, 2] as x, y; its radius is about 1."""
    points = _MAKERS[family][1](rng)
    angle = rng.uniform(0, 2 * np.pi)
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.asarray(points @ np.array([[cosine, sine], [-sine, cosine]]))


def fill_outline(canvas: ByteImage, points_xy: Points, value: int = 255) -> None:
    """Fill the curve with antialiasing; `points_xy` in pixels, [N, 2]."""
    sixteenths = np.round(points_xy * 16).astype(np.int32)
    cv2.fillPoly(canvas, [sixteenths], value, lineType=cv2.LINE_AA, shift=4)
