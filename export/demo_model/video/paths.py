"""Where things are in each frame of a clip, decided before anything is painted.

Lengths in pixels of the scene before its squash to a square; one row per frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from export.demo_model.fields import Points


@dataclass(frozen=True)
class Path:
    """Of one object: centre [T, 2], turn in radians [T], size relative to its painted one [T]."""

    centre: Points
    turn: Points
    size: Points


@dataclass(frozen=True)
class Mover:
    """What an object starts with: its place, speed (per frame) and radius."""

    centre: Points
    velocity: Points
    radius: float


def random_walk(rng: np.random.Generator, frames: int, step: float, inertia: float) -> Points:
    """Smooth random displacement [T, 2], zero at first: speeds follow an autoregression."""
    speed, place = np.zeros(2), np.zeros((frames, 2))
    for frame in range(1, frames):
        speed = inertia * speed + rng.normal(0, step, 2)
        place[frame] = place[frame - 1] + speed
    return place


def spins(rng: np.random.Generator, frames: int, pace: float) -> tuple[Points, Points]:
    """Turn and size over the frames: a constant rate each, the size swinging back before it doubles."""
    rate = rng.normal(0, 0.06) * pace
    time = np.arange(frames)
    growth, period = rng.normal(0, 0.14) * min(pace, 1.5), rng.uniform(14, 50)
    size = np.exp(growth * np.sin(2 * np.pi * time / period))
    return np.asarray(rate * time), np.asarray(size)


def keep_apart(
    rng: np.random.Generator, movers: list[Mover], frames: int, frame_wh: Points, agility: float
) -> list[Points]:
    """Centres [T, 2] of discs that bounce off each other and the frame's edge: nothing is hidden."""
    centres = np.array([mover.centre for mover in movers])
    velocities = np.array([mover.velocity for mover in movers])
    radii = np.array([mover.radius for mover in movers])
    track = [centres.copy()]
    for _ in range(1, frames):
        velocities = velocities + rng.normal(0, agility, velocities.shape)
        centres = centres + velocities
        for _ in range(4):  # a push can make a neighbour touch the next
            _push_apart(centres, velocities, radii)
        low, high = radii[:, None] * 0.9, frame_wh - radii[:, None] * 0.9
        outside = (centres < low) | (centres > high)
        inwards = np.where(centres < frame_wh / 2, 1.0, -1.0)
        velocities = np.where(outside, np.abs(velocities) * inwards, velocities)
        centres = np.clip(centres, np.minimum(low, high), np.maximum(low, high))
        track.append(centres.copy())
    return [np.array([row[i] for row in track]) for i in range(len(movers))]


def _push_apart(centres: Points, velocities: Points, radii: Points) -> None:
    """Pairs that touch exchange their speeds along the line between them, in place."""
    for i in range(len(radii)):
        for j in range(i + 1, len(radii)):
            line = centres[j] - centres[i]
            distance = float(np.hypot(*line)) + 1e-6
            depth = radii[i] + radii[j] + 2 - distance
            if depth <= 0:
                continue
            normal = line / distance
            centres[i] -= normal * depth / 2
            centres[j] += normal * depth / 2
            approach = float((velocities[i] - velocities[j]) @ normal)
            if approach > 0:
                velocities[i] -= approach * normal
                velocities[j] += approach * normal


def freely(
    rng: np.random.Generator, mover: Mover, frames: int, frame_wh: Points, agility: float
) -> Points:
    """Centres [T, 2] of one that heeds nobody: it may hide others or be hidden; it bounces at the edge."""
    centre, velocity = mover.centre.copy(), mover.velocity.copy()
    track = [centre.copy()]
    for _ in range(1, frames):
        velocity = velocity + rng.normal(0, agility, 2)
        centre = centre + velocity
        inwards = np.where(centre < frame_wh / 2, 1.0, -1.0)
        outside = (centre < 0) | (centre > frame_wh)
        velocity = np.where(outside, np.abs(velocity) * inwards, velocity)
        track.append(centre.copy())
    return np.array(track)


def crossing(
    rng: np.random.Generator, meeting: Points, radius: float, frames: int, heading: float
) -> Points:
    """Centres [T, 2] of one that passes `meeting` near the clip's middle, apart from it at first."""
    when = rng.uniform(0.35, 0.65) * (frames - 1)
    reach = radius * rng.uniform(2.4, 4.0)  # how far off it starts
    direction = np.array([np.cos(heading), np.sin(heading)])
    along = (np.arange(frames) - when) / when * reach
    sway = random_walk(rng, frames, 0.02 * radius, 0.8)
    return np.asarray(meeting + along[:, None] * direction + sway - sway[int(when)])


def leaving(
    rng: np.random.Generator, start: Points, radius: float, frames: int, frame_wh: Points
) -> Points:
    """Centres [T, 2] of one that goes out over the nearest edge, and mostly comes back there."""
    to_edges = np.array([start[0], frame_wh[0] - start[0], start[1], frame_wh[1] - start[1]])
    edge = int(np.argmin(to_edges))
    outwards = np.array([(-1.0, 0.0), (1.0, 0.0), (0.0, -1.0), (0.0, 1.0)][edge])
    distance = to_edges[edge] + radius * rng.uniform(1.3, 1.8)
    gone = rng.uniform(0.25, 0.5) * frames
    back = gone + rng.uniform(0.12, 0.35) * frames if rng.random() < 0.75 else frames + 1.0
    time = np.arange(frames)
    leave_at = gone * rng.uniform(0, 0.5)
    out = np.clip((time - leave_at) / (gone - leave_at), 0, 1)
    returned = np.clip((time - back) / (gone - leave_at), 0, rng.uniform(0.7, 1))
    along = np.cross(outwards, [0, 0, 1])[:2] * rng.normal(0, 0.15) * radius
    away = outwards * ((out - returned) * distance)[:, None]
    return np.asarray(start + away + along * time[:, None] / 4)
