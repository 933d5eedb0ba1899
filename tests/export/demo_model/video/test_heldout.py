"""Held-out clips: the same for everybody, and clicks that lie on objects which are well seen."""

import numpy as np

from export.demo_model.video.heldout import OCCLUDED, OPEN, heldout_clips


def test_held_out_clips_are_the_same_each_time_and_half_are_open():
    clips = list(heldout_clips(6, seed=3, objects=2, frames=5))
    again = list(heldout_clips(6, seed=3, objects=2, frames=5))
    assert [clip.group for clip in clips].count(OPEN) == 3
    assert {clip.kind for clip in clips if clip.group == OCCLUDED} == {
        "crossing",
        "hidden",
        "leaving",
    }
    for clip, other in zip(clips, again, strict=True):
        np.testing.assert_array_equal(clip.pictures, other.pictures)
        np.testing.assert_array_equal(clip.masks, other.masks)
        np.testing.assert_array_equal(clip.clicks, other.clicks)
        frames, objects = clip.masks.shape[:2]
        assert frames == len(clip.pictures) == 5
        assert 1 <= objects <= 2
        assert clip.present[0].all()
        for k, (x, y) in enumerate(clip.clicks):
            assert clip.masks[0, k, int(y), int(x)]


def test_an_object_without_pixels_is_absent():
    clip = next(iter(heldout_clips(1, objects=1, frames=2)))
    clip.masks[1] = False
    assert clip.present.tolist() == [[True], [False]]
