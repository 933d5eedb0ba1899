"""Held-out clips, and the objects and clicks that every method gets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.demo_model.fields import ByteImage
from export.demo_model.prompts import centre_click
from export.demo_model.video.clips import HELDOUT_CLIPS, Clip, seeded_clip

HELDOUT_SIZE, HELDOUT_FRAMES = 320, 32
OPEN, OCCLUDED = "without occlusion", "with occlusion"
# Half of the clips have no occlusion, a sixth each has one of the three kinds of it.
_KIND_OF_INDEX = ("open", "crossing", "open", "hidden", "open", "leaving")
LEAST_PRESENT_AREA = 12 / 256**2  # share of the image; what shows less counts as absent
_LEAST_START_AREA = 0.003
_LEAST_START_VISIBLE = 0.9  # of the object, on the first frame
_PICK_STREAM = 10


@dataclass(frozen=True)
class HeldoutClip:
    """T pictures and K objects."""

    kind: str
    pictures: ByteImage  # [T, S, S, 3]
    masks: NDArray[np.bool_]  # [T, K, S, S], visible parts
    clicks: NDArray[np.float32]  # [K, 2], x and y at the centre, on the first frame

    @property
    def group(self) -> str:
        return OPEN if self.kind == "open" else OCCLUDED

    @property
    def present(self) -> NDArray[np.bool_]:
        """Whether each object shows, [T, K]."""
        return np.asarray(self.masks.mean((2, 3)) >= LEAST_PRESENT_AREA)


def heldout_clips(
    count: int, seed: int = 0, objects: int = 4, frames: int = HELDOUT_FRAMES
) -> Iterator[HeldoutClip]:
    """The first `count` clips of the held-out stream, with up to `objects` objects of each, by lot."""
    for index in range(count):
        kind = _KIND_OF_INDEX[index % len(_KIND_OF_INDEX)]
        clip = seeded_clip(HELDOUT_CLIPS, seed, index, frames=frames, size=HELDOUT_SIZE, kind=kind)
        chosen = heldout_clip(clip, np.random.default_rng([_PICK_STREAM, seed, index]), objects)
        if chosen is not None:
            yield chosen


def heldout_clip(clip: Clip, rng: np.random.Generator, objects: int) -> HeldoutClip | None:
    """A rendered clip with some of its objects, or None where no object shows well at first."""
    rendered = [clip.render(frame) for frame in range(len(clip))]
    first = rendered[0]
    areas = np.bincount(first.labels.ravel(), minlength=clip.objects + 1)[1 : clip.objects + 1]
    well_seen = first.visible >= _LEAST_START_VISIBLE
    eligible = np.flatnonzero(well_seen & (areas >= _LEAST_START_AREA * first.labels.size)) + 1
    labels = rng.permutation(eligible)[:objects]
    if len(labels) == 0:
        return None
    maps = np.stack([frame.labels for frame in rendered])
    masks = maps[:, None] == labels[None, :, None, None]
    return HeldoutClip(
        kind=clip.kind,
        pictures=np.stack([frame.picture for frame in rendered]),
        masks=masks,
        clicks=np.array([centre_click(mask) for mask in masks[0]], np.float32),
    )
