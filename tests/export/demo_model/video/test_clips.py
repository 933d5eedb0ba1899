"""Moving scenes: the same seed gives the same clip, and each kind does what it is called after."""

import numpy as np
import pytest

from export.demo_model.video.clips import (
    HELDOUT_CLIPS,
    KINDS,
    TRAINING_CLIPS,
    seeded_clip,
)

SIZE, FRAMES, SEEDS = 96, 12, range(5)


def clip(kind=None, index=0, stream=TRAINING_CLIPS, seed=5):
    return seeded_clip(stream, seed, index, frames=FRAMES, size=SIZE, kind=kind)


@pytest.fixture(scope="module")
def rendered():
    """Visible shares [T, K] of clips of each kind."""
    shares = {}
    for kind in KINDS:
        clips = [clip(kind, index) for index in SEEDS]
        shares[kind] = [np.array([c.render(t).visible for t in range(len(c))]) for c in clips]
    return shares


def test_a_frame_has_the_promised_arrays():
    moving = clip("open")
    frame = moving.render(3)
    assert len(moving) == FRAMES
    assert (frame.picture.shape, frame.picture.dtype) == ((SIZE, SIZE, 3), np.uint8)
    assert (frame.labels.shape, frame.labels.dtype) == ((SIZE, SIZE), np.uint8)
    assert frame.visible.shape == (moving.objects,)
    assert frame.labels.max() <= moving.objects


@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_the_same_in_whatever_order_they_are_asked_for(kind):
    first, again = clip(kind), clip(kind)
    backwards = {t: first.render(t) for t in reversed(range(FRAMES))}
    for t in (0, 5, FRAMES - 1):
        np.testing.assert_array_equal(again.render(t).picture, backwards[t].picture)
        np.testing.assert_array_equal(again.render(t).labels, backwards[t].labels)


@pytest.mark.parametrize(
    "other", [{"stream": HELDOUT_CLIPS}, {"seed": 6}, {"index": 1}], ids=["stream", "seed", "index"]
)
def test_another_stream_seed_or_index_gives_another_clip(other):
    assert (clip("open").render(0).picture != clip("open", **other).render(0).picture).any()


def test_objects_move_turn_and_grow_in_all_but_still_clips():
    for kind in KINDS:
        actors = [actor for index in SEEDS for actor in clip(kind, index).actors if actor.label]
        travelled = [np.abs(np.diff(a.path.centre, axis=0)).sum() for a in actors]
        turned = [np.ptp(a.path.turn) for a in actors]
        grown = [np.ptp(a.path.size) for a in actors]
        if kind == "still":
            assert max(turned) == max(grown) == 0
            assert max(travelled) < 0.1 * SIZE * 2  # at most pushed apart once
        else:
            assert np.median(travelled) > 0.03 * SIZE
            assert min(max(turned), max(grown)) > 0.05


def test_nothing_is_hidden_in_open_clips(rendered):
    for shares in rendered["open"]:
        assert np.median(shares.min(0)) > 0.9


@pytest.mark.parametrize("kind", ["crossing", "hidden", "leaving"])
def test_something_is_hidden_or_gone_in_the_others(rendered, kind):
    hidden = [(shares.min(0) < 0.5).any() for shares in rendered[kind]]
    assert np.mean(hidden) >= 0.8


def test_some_objects_leave_and_most_of_them_come_back(rendered):
    gone = back = 0
    for index in range(len(SEEDS)):
        shares = rendered["leaving"][index]
        for track in shares.T:
            if track[0] > 0.5 and track.min() == 0:
                gone += 1
                back += track[int(np.argmin(track)) :].max() > 0.3
    assert gone >= len(SEEDS)
    assert back >= gone / 3


def test_crossing_clips_have_two_of_a_kind_that_meet():
    for index in SEEDS:
        moving = clip("crossing", index)
        paths = {actor.label: actor for actor in moving.actors}
        distance = np.hypot(*(paths[1].path.centre - paths[2].path.centre).T)
        reach = max(paths[1].painted.radius, paths[2].painted.radius)
        assert distance.min() < 1.5 * reach < distance[0]


def test_about_a_third_of_training_clips_has_absences():
    """Drawn as training draws them."""
    kinds = [seeded_clip(TRAINING_CLIPS, 5, index, frames=2, size=32).kind for index in range(200)]
    share = np.mean([kind in ("hidden", "leaving") for kind in kinds])
    assert 0.25 < share < 0.43
    assert set(kinds) == set(KINDS)
