"""What the evaluation counts, on masks that can be counted by hand."""

import numpy as np
import pytest

from export.demo_model.video.evaluate import (
    TRACKER,
    Scores,
    corrections_of,
    leads_of,
    read_baselines,
    table_of,
)
from export.demo_model.video.heldout import HeldoutClip
from export.demo_model.video.scoring import (
    ClipScores,
    Correction,
    correct_worst,
    difference_over_clips,
    mean_over_clips,
    score_tracked,
)
from export.demo_model.video.trackers import Tracked


def bars(*widths):
    """Masks [T, 1, 4, 10]: as many columns as said."""
    masks = np.zeros((len(widths), 1, 4, 10), bool)
    for frame, width in enumerate(widths):
        masks[frame, 0, :, :width] = True
    return masks


def held_out(*widths, kind="open"):
    pictures = np.zeros((len(widths), 4, 10, 3), np.uint8)
    return HeldoutClip(kind, pictures, bars(*widths), np.array([[1, 1]], np.float32))


def test_ious_are_of_frames_with_the_object_and_presence_of_the_others():
    clip = held_out(4, 4, 8, 0, 0)
    tracked = Tracked(bars(10, 2, 8, 3, 0), np.array([[1], [1], [1], [1], [0]], bool))
    scores = score_tracked(clip, tracked)
    assert scores.ious == [0.5, 1.0]  # not of the first frame, which was clicked
    assert scores.told_present == [True, True]
    assert scores.told_absent == [False, True]


def test_an_object_that_is_told_absent_has_no_mask():
    scores = score_tracked(held_out(4, 4), Tracked(bars(4, 4), np.array([[True], [False]])))
    assert (scores.ious, scores.told_present) == ([0.0], [False])


def test_masks_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"expected shape \(2, 1, 4, 10\)"):
        score_tracked(held_out(4, 4), Tracked(bars(4), np.ones((1, 1), bool)))


def test_the_interval_is_over_clips_not_over_frames():
    """Two clips, each of one mind: whatever is drawn, the mean lies between them."""
    many = mean_over_clips([[0.0] * 50, [1.0] * 50])
    assert (many.value, many.count) == (0.5, 100)
    assert (many.low, many.high) == (0.0, 1.0)
    alike = mean_over_clips([[0.25, 0.75]] * 30)
    assert (alike.value, alike.low, alike.high) == (0.5, 0.5, 0.5)
    unequal = mean_over_clips([[1.0] * 3, [0.0]])
    assert unequal.value == 0.75
    assert str(mean_over_clips([[], []])) == "-"


def test_a_lead_is_of_the_same_frames():
    ours = [ClipScores("open", "a", [0.9, 0.5], [], []), ClipScores("open", "a", [0.4], [], [])]
    theirs = [ClipScores("open", "a", [0.8, 0.4], [], []), ClipScores("open", "a", [0.3], [], [])]
    lead = difference_over_clips(ours, theirs, lambda clip: clip.ious)
    assert (lead.value, lead.low, lead.high) == pytest.approx((0.1, 0.1, 0.1))
    with pytest.raises(ValueError, match="the same objects and frames"):
        difference_over_clips(ours, theirs[::-1], lambda clip: clip.ious)


class Corrected:
    """A tracker that is right from the correction on, and notes what it was asked."""

    def __init__(self, truth):
        self.truth, self.asked = truth, []

    def correct(self, pictures, first, correction):
        self.asked.append((first, correction))
        return Tracked(self.truth[:, :1], np.ones((len(pictures), 1), bool))


def test_the_correction_goes_to_the_worst_frame_on_which_the_object_shows():
    clip = held_out(4, 4, 8, 0, 6)
    tracked = Tracked(bars(4, 4, 2, 0, 6), np.ones((5, 1), bool))
    tracker = Corrected(clip.masks)
    (gain,) = correct_worst(tracker, clip, tracked)
    (first, correction) = tracker.asked[0]
    assert (first.frame, first.x, first.y) == (0, 1, 1)
    assert (correction.frame, correction.label) == (2, 1)
    assert 2 <= correction.x < 8  # where something is missing
    assert gain == Correction(pytest.approx((1 + 0.25 + 1) / 3), 1.0)


def test_tables_name_every_method_and_read_their_own_file(tmp_path):
    import json
    from dataclasses import asdict

    clip = held_out(4, 4, 8, 0)
    ours = score_tracked(clip, Tracked(bars(4, 4, 8, 0), np.array([[1], [1], [1], [0]], bool)))
    worse = score_tracked(clip, Tracked(bars(4, 2, 4, 0), np.array([[1], [1], [1], [0]], bool)))
    scores = Scores({TRACKER: [ours], "first mask kept": [worse]}, [[Correction(0.5, 0.75)]])
    assert [column.header for column in table_of(scores).columns][:2] == [
        "method",
        "without occlusion",
    ]
    assert list(leads_of(scores).columns[1].cells) == ["0.500 (0.500–0.500)"]
    assert "gain 0.250" in corrections_of(scores)
    path = tmp_path / "figures.json"
    path.write_text(json.dumps(asdict(scores)))
    assert read_baselines(path, [clip]) == {"first mask kept": [worse]}
    with pytest.raises(ValueError, match="scores of these clips"):
        read_baselines(path, [held_out(4, 4, 4, 4)])
