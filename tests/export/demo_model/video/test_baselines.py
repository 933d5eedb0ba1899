"""The baselines do what they are called after."""

import numpy as np
import pytest

from export.demo_model.prompts import centre_click
from export.demo_model.video.baselines import (
    CLICKED_AGAIN,
    CSRT,
    FIRST_MASK,
    FLOW,
    follow_by_baselines,
    has_csrt,
    moved_by_flow,
)

SIZE, STEP = 96, 3


def disc(frame):
    y, x = np.mgrid[:SIZE, :SIZE]
    return (x - 30 - STEP * frame) ** 2 + (y - 48) ** 2 < 14**2


@pytest.fixture(scope="module")
def moving():
    """A speckled disc on a speckled ground, five frames: flow needs something to hold on to."""
    rng = np.random.default_rng(0)
    ground, own = rng.integers(40, 90, (SIZE, SIZE, 1)), rng.integers(150, 220, (SIZE, SIZE, 1))
    frames = [np.where(disc(t)[..., None], np.roll(own, STEP * t, 1), ground) for t in range(5)]
    return np.repeat(np.stack(frames), 3, axis=-1).astype(np.uint8)


class SaysWhereItWasClicked:
    """A predictor whose mask is what is bright around the click."""

    def set_image(self, image):
        self.bright = image[..., 0] > 120

    def predict(self, point_coords=None, point_labels=None, *, box=None, **_):
        if box is None:
            hit = [
                self.bright if self.bright[int(y), int(x)] else ~self.bright
                for ((x, y),) in point_coords
            ]
        else:
            hit = [self.bright]
        masks = np.stack(hit)[:, None].astype(np.uint8)

        class Answer:
            iou_predictions = np.ones((len(masks), 1), np.float32)

        Answer.masks = masks
        return Answer


def iou(one, other):
    return (one & other).sum() / (one | other).sum()


def test_each_follows_in_its_own_way(moving):
    clicks = np.array([centre_click(disc(0))], np.float32)
    found = follow_by_baselines(SaysWhereItWasClicked(), moving, clicks)
    assert set(found) == {FIRST_MASK, FLOW, CLICKED_AGAIN} | ({CSRT} if has_csrt() else set())
    for tracked in found.values():
        assert tracked.masks.shape == (5, 1, SIZE, SIZE)
        assert iou(tracked.masks[0, 0], disc(0)) > 0.99
    assert iou(found[FIRST_MASK].masks[4, 0], disc(0)) > 0.99
    assert iou(found[CLICKED_AGAIN].masks[4, 0], disc(4)) > 0.99
    assert iou(found[FLOW].masks[4, 0], disc(4)) > iou(disc(0), disc(4)) + 0.2


def test_flow_moves_masks_the_way_the_pictures_move(moving):
    moved = moved_by_flow(moving, disc(0)[None])
    columns = np.flatnonzero(moved[4, 0].any(0))
    assert abs(columns.mean() - (30 + 4 * STEP)) < STEP


def test_what_clicking_again_has_lost_stays_lost(moving):
    dark = moving.copy()
    dark[2:] = 10
    clicks = np.array([centre_click(disc(0))], np.float32)

    class Nothing(SaysWhereItWasClicked):
        def predict(self, point_coords=None, point_labels=None, **keywords):
            answer = super().predict(point_coords, point_labels, **keywords)
            if not self.bright.any():
                answer.masks = np.zeros_like(answer.masks)
            return answer

    again = follow_by_baselines(Nothing(), dark, clicks)[CLICKED_AGAIN]
    assert again.present[:, 0].tolist() == [True, True, False, False, False]
