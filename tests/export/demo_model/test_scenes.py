"""The scene generator: the same seed gives the same scene, and labels mean what they say."""

import numpy as np
import pytest

from export.demo_model.outlines import fill_outline, make_outline, random_family
from export.demo_model.scenes import (
    HELDOUT_STREAM,
    LEAST_LABELLED_AREA,
    TRAINING_STREAM,
    make_scene,
    seeded_scene,
)

SIZE = 96


@pytest.fixture(scope="module")
def scenes():
    return [seeded_scene(TRAINING_STREAM, 11, index, SIZE) for index in range(24)]


def test_a_scene_has_the_promised_arrays(scenes):
    for image, labels in scenes:
        assert (image.shape, image.dtype) == ((SIZE, SIZE, 3), np.uint8)
        assert (labels.shape, labels.dtype) == ((SIZE, SIZE), np.uint8)


def test_the_same_seed_gives_the_same_scene(scenes):
    for index in (0, 7, 23):
        image, labels = seeded_scene(TRAINING_STREAM, 11, index, SIZE)
        np.testing.assert_array_equal(image, scenes[index][0])
        np.testing.assert_array_equal(labels, scenes[index][1])


@pytest.mark.parametrize(
    ("stream", "seed", "index"), [(HELDOUT_STREAM, 11, 0), (TRAINING_STREAM, 12, 0)]
)
def test_another_stream_or_seed_gives_another_scene(scenes, stream, seed, index):
    assert (seeded_scene(stream, seed, index, SIZE)[0] != scenes[0][0]).any()


def test_labels_are_numbered_without_gaps_and_none_is_debris(scenes):
    for _, labels in scenes:
        areas = np.bincount(labels.ravel())
        assert (areas[1:] >= LEAST_LABELLED_AREA * labels.size).all()


def test_nearly_every_scene_has_objects_and_background(scenes):
    shares = np.array([(labels > 0).mean() for _, labels in scenes])
    assert (shares > 0).mean() > 0.9
    assert shares.max() < 0.95


def test_objects_differ_from_the_background(scenes):
    """Median colours, so that noise and relief do not count; unlike the floor that is promised
    before light and blur, this asks only that the promise can still be seen."""
    differences = []
    for image, labels in scenes:
        background = np.median(image[labels == 0], axis=0)
        for label in range(1, labels.max() + 1):
            colour = np.median(image[labels == label], axis=0)
            differences.append(np.abs(colour - background).max())
    assert np.median(differences) > 40
    assert np.mean(np.array(differences) > 10) > 0.9


def test_scenes_are_of_many_kinds(scenes):
    grey = [bool((np.ptp(image, axis=2) < 12).mean() > 0.95) for image, _ in scenes]
    counts = [int(labels.max()) for _, labels in scenes]
    assert 0 < sum(grey) < len(grey)
    assert max(counts) - min(counts) > 5


def test_size_does_not_change_what_is_in_the_scene():
    rng_small, rng_large = np.random.default_rng(5), np.random.default_rng(5)
    small, large = make_scene(rng_small, 64)[1], make_scene(rng_large, 65)[1]
    assert small.shape == (64, 64)
    assert large.shape == (65, 65)


def test_outlines_have_about_unit_radius_and_fill_without_holes():
    rng = np.random.default_rng(0)
    for _ in range(50):
        outline = make_outline(rng, random_family(rng))
        radii = np.hypot(*outline.T)
        assert 0.5 < radii.max() < 1.6
        canvas = np.zeros((64, 64), np.uint8)
        fill_outline(canvas, outline * 15 + 32)
        assert canvas.max() == 255
        assert 0.02 < (canvas > 127).mean() < 0.6
