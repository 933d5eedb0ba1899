"""Moving scenes: the demo model's objects on their way, seen by a moving camera.

Five kinds of clips, each seeded and rendered frame by frame when asked for:

- `still`: nothing moves but the camera, if it does;
- `open`: objects move, turn and grow, and keep apart: nothing is hidden;
- `crossing`: look-alikes pass each other, one over the other; the rest move as they like;
- `hidden`: something large passes over objects, wholly hiding some for a while;
- `leaving`: objects leave the frame, and most come back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from export.demo_model.camera import photograph
from export.demo_model.fields import ByteImage, FloatImage, Points, illumination
from export.demo_model.outlines import make_outline
from export.demo_model.recipe import Scene, random_scene
from export.demo_model.scenes import paint_background
from export.demo_model.surfaces import distinct_colour, random_look
from export.demo_model.video.actors import Actor, Painted, lay, paint
from export.demo_model.video.paths import (
    Mover,
    Path,
    crossing,
    freely,
    keep_apart,
    leaving,
    random_walk,
    spins,
)

KINDS = ("still", "open", "crossing", "hidden", "leaving")
KIND_SHARES = (0.08, 0.34, 0.24, 0.16, 0.18)
TRAINING_CLIPS, HELDOUT_CLIPS = 6, 7  # first word of a clip's seed: the two never meet
_MARGIN = 0.25  # of the frame, on each side, that the background goes on beyond it


@dataclass(frozen=True)
class Frame:
    """A picture [S, S, 3], its labels [S, S], and per label 1..n the visible share of the whole object."""

    picture: ByteImage
    labels: ByteImage
    visible: Points


@dataclass(frozen=True)
class Clip:
    """A clip that is decided but not yet painted."""

    kind: str
    scene: Scene
    size: int
    background: FloatImage  # wider than the frame by `_MARGIN` on each side
    actors: tuple[Actor, ...]  # from the lowest to the topmost
    corners: Points  # [T, 2], where the camera's top left corner looks
    zooms: Points  # [T]
    lights: Points  # [T], brightness
    lamp: FloatImage  # [H, W], light that drifts along
    sensor_seed: int

    def __len__(self) -> int:
        return len(self.corners)

    @property
    def objects(self) -> int:
        return max(actor.label for actor in self.actors)

    def render(self, index: int) -> Frame:
        """Frame `index`, the same whenever it is asked for."""
        scene = self.scene
        size_wh = (scene.width, scene.height)
        corner, zoom = self.corners[index], float(self.zooms[index])
        margin = _MARGIN * np.array(size_wh)
        offset = -zoom * (corner + margin)
        matrix = np.array([[zoom, 0, offset[0]], [0, zoom, offset[1]]], np.float32)
        image = cv2.warpAffine(self.background, matrix, size_wh, borderMode=cv2.BORDER_REFLECT)
        labels = np.zeros((scene.height, scene.width), np.uint8)
        whole = np.zeros(self.objects + 1)
        for actor in self.actors:
            whole[actor.label] = lay(
                actor,
                index,
                image=image,
                labels=labels,
                camera=(corner, zoom),
                shadow=scene.shadow if actor.label else None,
            )
        shift = np.array([[1, 0, 0.8 * index], [0, 1, 0.3 * index]], np.float32)
        lamp = cv2.warpAffine(self.lamp, shift, size_wh, borderMode=cv2.BORDER_REFLECT)
        image *= (self.lights[index] * (1 + lamp))[..., None]
        # The same camera throughout: one seed. What changes from frame to frame comes on top.
        rng = np.random.default_rng(self.sensor_seed)
        picture = photograph(rng, image, scene.grey, self.size)
        noise = np.random.default_rng([self.sensor_seed, index])
        grain = noise.normal(0, noise.uniform(0, 4), picture.shape[:2])
        picture = np.clip(picture + grain[..., None], 0, 255).astype(np.uint8)
        areas = np.bincount(labels.ravel(), minlength=self.objects + 1)[1 : self.objects + 1]
        squashed = cv2.resize(labels, (self.size, self.size), interpolation=cv2.INTER_NEAREST)
        return Frame(picture, np.asarray(squashed, np.uint8), areas / np.maximum(whole[1:], 1))


def seeded_clip(
    stream: int, seed: int, index: int, *, frames: int, size: int, kind: str | None = None
) -> Clip:
    """Clip `index` of one of the two streams; the same arguments give the same clip."""
    return make_clip(np.random.default_rng([stream, seed, index]), frames, size, kind)


def make_clip(rng: np.random.Generator, frames: int, size: int, kind: str | None = None) -> Clip:
    """Decide a clip: what there is, how it looks, and where it goes."""
    drawn = str(rng.choice(KINDS, p=KIND_SHARES))
    kind = kind or drawn
    scene = random_scene(rng, size)
    count = int(rng.integers(2, 8))
    largest = 0.2 if count < 4 else 0.14
    radius = float(np.clip(scene.radius, 0.05 * scene.scale, largest * scene.scale))
    scene = replace(scene, object_count=count, radius=radius)
    wide_scene = replace(
        scene,
        width=int(scene.width * (1 + 2 * _MARGIN)),
        height=int(scene.height * (1 + 2 * _MARGIN)),
    )
    background = paint_background(rng, wide_scene)
    pace = 0.0 if kind == "still" else float(rng.choice([0.4, 1.0, 1.0, 1.8]))
    painted = _paint_objects(rng, scene, background, alike=kind == "crossing")
    centres = _centres(rng, scene, kind, painted, frames=frames, pace=pace)
    actors = [
        Actor(one, Path(centre, *spins(rng, frames, pace)), label)
        for label, (one, centre) in enumerate(zip(painted, centres, strict=True), start=1)
    ]
    actors = [actors[i] for i in rng.permutation(len(actors))]
    if kind == "hidden":
        actors.append(_cover(rng, scene, background, actors, frames))
    corners, zooms = _camera(rng, scene, frames, moves=kind != "open" or rng.random() < 0.6)
    flicker = rng.choice([0.0, 0.0, 0.02, 0.06])
    swing = rng.choice([0.0, 0.1, 0.25]) * np.sin(np.arange(frames) / rng.uniform(4, 20))
    return Clip(
        kind=kind,
        scene=scene,
        size=size,
        background=background,
        actors=tuple(actors),
        corners=corners,
        zooms=zooms,
        lights=np.asarray(1 + swing + rng.normal(0, flicker, frames)),
        lamp=rng.uniform(0, 0.25) * illumination(rng, scene.height, scene.width),
        sensor_seed=int(rng.integers(1 << 30)),
    )


def _paint_objects(
    rng: np.random.Generator, scene: Scene, background: FloatImage, alike: bool
) -> list[Painted]:
    """The scene's objects; where they are alike, the first two share look and outline."""
    under = np.asarray(background.mean((0, 1)), np.float64)
    painted = []
    for number in range(scene.object_count):
        radius = scene.radius * np.exp(rng.normal(0, scene.radius_spread))
        radius = float(np.clip(radius, 0.04 * scene.scale, 0.22 * scene.scale))
        if number != 1 or not alike:
            look = scene.looks[int(rng.integers(len(scene.looks)))]
            family = scene.families[int(rng.integers(len(scene.families)))]
            outline = make_outline(rng, family) * radius
        elif rng.random() < 0.5:  # the same kind of thing, not the same thing
            outline = make_outline(rng, family) * radius
        painted.append(paint(rng, scene, look, outline, under))
    return painted


def _centres(
    rng: np.random.Generator,
    scene: Scene,
    kind: str,
    painted: list[Painted],
    *,
    frames: int,
    pace: float,
) -> list[Points]:
    """Each object's centre [T, 2]."""
    frame_wh = np.array([scene.width, scene.height], np.float64)
    speed = 0.007 * scene.scale * pace
    agility = 0.12 * speed
    movers: list[Mover] = []
    for one in painted:
        radius = one.radius * (1.15 if pace else 1.0)  # they grow on their way
        options = [rng.uniform(0.08, 0.92, 2) * frame_wh for _ in range(12)]
        options = [np.clip(o, radius, np.maximum(frame_wh - radius, radius)) for o in options]

        def room(centre: Points, radius: float = radius) -> float:
            gaps = [np.hypot(*(centre - m.centre)) - m.radius - radius for m in movers]
            return float(min([*gaps, 10.0]))

        movers.append(Mover(max(options, key=room), rng.normal(0, speed, 2), radius))
    if kind in ("still", "open"):
        return keep_apart(rng, movers, frames, frame_wh, agility)
    centres = [freely(rng, mover, frames, frame_wh, agility) for mover in movers]
    if kind == "crossing":
        meeting = rng.uniform(0.3, 0.7, 2) * frame_wh
        heading = rng.uniform(0, 2 * np.pi)
        apart = rng.uniform(np.pi / 3, np.pi) * rng.choice([-1, 1])
        reach = max(movers[0].radius, movers[1].radius)
        for number, angle in ((0, heading), (1, heading + apart)):
            centres[number] = crossing(rng, meeting, reach, frames, angle)
    if kind == "leaving":
        for number in rng.permutation(len(painted))[: max(1, len(painted) // 2)]:
            mover = movers[number]
            centres[number] = leaving(rng, mover.centre, mover.radius, frames, frame_wh)
    return centres


def _cover(
    rng: np.random.Generator,
    scene: Scene,
    background: FloatImage,
    actors: list[Actor],
    frames: int,
) -> Actor:
    """Something large without a label that sweeps over one of the objects, and clears its place."""
    target = actors[int(rng.integers(len(actors)))]
    width = target.painted.radius * rng.uniform(1.2, 2.0)
    length = rng.uniform(1.3, 3.0) * width if rng.random() < 0.5 else 1.6 * scene.scale
    heading = rng.uniform(0, 2 * np.pi)
    direction = np.array([np.cos(heading), np.sin(heading)])
    across = np.array([-direction[1], direction[0]])
    box = make_outline(rng, "tablet")
    box = box / np.abs(box).max(0)
    outline = box[:, :1] * width * direction + box[:, 1:] * length * across
    # Close to the background's colour it would be hard to see as a thing at all.
    under = np.asarray(background.mean((0, 1)), np.float64)
    colour = distinct_colour(rng, scene.grey, under, 30)
    look = random_look(rng, colour, scene.grey, rng.uniform(0, 2 * np.pi))
    painted = paint(rng, scene, look, outline, under)
    when = int(rng.uniform(0.3, 0.6) * frames)
    reach = (width + target.painted.radius) * rng.uniform(1.05, 1.6)
    along = np.clip((np.arange(frames) - when) / max(when, 1), -1, 3) * reach
    if rng.random() < 0.4:  # it stops above the object for a while
        along = np.sign(along) * np.maximum(np.abs(along) - 0.3 * reach, 0) / 0.7
    centre = target.path.centre[when] + along[:, None] * direction
    return Actor(painted, Path(centre, np.zeros(frames), np.ones(frames)), 0)


def _camera(
    rng: np.random.Generator, scene: Scene, frames: int, moves: bool
) -> tuple[Points, Points]:
    """Where the camera's corner looks [T, 2], and its zoom [T]: a pan, a shaking hand, a slow zoom."""
    corners, zooms = np.zeros((frames, 2)), np.ones(frames)
    if not moves:
        return corners, zooms
    if rng.random() < 0.4:
        corners = corners + np.arange(frames)[:, None] * rng.normal(0, 0.0015, 2) * scene.scale
    if rng.random() < 0.5:
        shake = random_walk(rng, frames, rng.uniform(0.001, 0.006) * scene.scale, 0.3)
        corners = corners + shake - np.linspace(0, 1, frames)[:, None] * shake[-1]
    if rng.random() < 0.3:
        swing = rng.normal(0, 0.06)
        zooms = np.exp(swing * np.sin(np.arange(frames) / rng.uniform(6, 20)))
    limit = 0.9 * _MARGIN * np.array([scene.width, scene.height])
    return np.clip(corners, -limit, limit), zooms
