"""How well objects were followed: J, presence, and how sure the means are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.demo_model.prompts import correction_click
from export.demo_model.scoring import mask_iou
from export.demo_model.video.heldout import HeldoutClip
from export.demo_model.video.trackers import Click, ClipTracker, Tracked

Floats = NDArray[np.float64]
_RESAMPLES = 2000


@dataclass(frozen=True)
class ClipScores:
    """Of one clip, over objects and all frames but the prompted one; lists of unequal length."""

    kind: str
    group: str
    ious: list[float]  # frames on which the object shows
    told_present: list[bool]  # on the same frames
    told_absent: list[bool]  # on the others


def score_tracked(clip: HeldoutClip, tracked: Tracked) -> ClipScores:
    """Compare with the truth; an object that is told absent has no mask."""
    if tracked.masks.shape != clip.masks.shape:
        raise ValueError(f"masks: expected shape {clip.masks.shape}, got {tracked.masks.shape}")
    scores = ClipScores(clip.kind, clip.group, [], [], [])
    there = clip.present
    for frame in range(1, len(clip.masks)):
        for k, truth in enumerate(clip.masks[frame]):
            told = bool(tracked.present[frame, k])
            if there[frame, k]:
                mask = tracked.masks[frame, k] & told
                scores.ious.append(mask_iou(mask, truth))
                scores.told_present.append(told)
            else:
                scores.told_absent.append(not told)
    return scores


@dataclass(frozen=True)
class Mean:
    """A mean with its 95 % interval, by resampling clips."""

    value: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        if not self.count:
            return "-"
        return f"{self.value:.3f} ({self.low:.3f}–{self.high:.3f})"


def mean_over_clips(values: Sequence[Sequence[float]], seed: int = 0) -> Mean:
    """The mean over all values of all clips; whole clips are drawn anew for the interval, because
    what happens within one clip hangs together."""
    kept = [np.asarray(clip, np.float64) for clip in values if len(clip)]
    if not kept:
        return Mean(float("nan"), float("nan"), float("nan"), 0)
    sums = np.array([clip.sum() for clip in kept])
    counts = np.array([len(clip) for clip in kept])
    drawn = np.random.default_rng(seed).integers(len(kept), size=(_RESAMPLES, len(kept)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Mean(float(sums.sum() / counts.sum()), float(low), float(high), int(counts.sum()))


def difference_over_clips(
    first: Sequence[ClipScores],
    second: Sequence[ClipScores],
    of: Callable[[ClipScores], list[float]],
) -> Mean:
    """How much higher the first scores on the same frames, with an interval of its own."""
    pairs = []
    for one, other in zip(first, second, strict=True):
        a, b = of(one), of(other)
        if len(a) != len(b):
            raise ValueError("expected scores of the same objects and frames")
        pairs.append(list(np.asarray(a) - np.asarray(b)))
    return mean_over_clips(pairs)


@dataclass(frozen=True)
class Correction:
    """J of one object before and after a click on its worst frame, over the frames it shows on."""

    before: float
    after: float


def correct_worst(tracker: ClipTracker, clip: HeldoutClip, tracked: Tracked) -> list[Correction]:
    """One click on each object's worst frame, then tracking again from the first frame."""
    corrections = []
    there = clip.present
    for k in range(clip.masks.shape[1]):
        frames = [f for f in range(1, len(clip.masks)) if there[f, k]]
        if not frames:
            continue
        own = tracked.masks[:, k] & tracked.present[:, k, None, None]
        before = {frame: mask_iou(own[frame], clip.masks[frame, k]) for frame in frames}
        worst = min(frames, key=lambda frame: before[frame])
        x, y, label = correction_click(own[worst], clip.masks[worst, k])
        start = Click(0, float(clip.clicks[k, 0]), float(clip.clicks[k, 1]))
        again = tracker.correct(clip.pictures, start, Click(worst, x, y, label))
        redrawn = again.masks[:, 0] & again.present[:, 0, None, None]
        after = [mask_iou(redrawn[frame], clip.masks[frame, k]) for frame in frames]
        corrections.append(Correction(float(np.mean(list(before.values()))), float(np.mean(after))))
    return corrections
