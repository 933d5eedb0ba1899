"""Prompts lie where they should."""

import numpy as np
import pytest

from export.demo_model.prompts import (
    BACKGROUND,
    BOX_BOTTOM_RIGHT,
    BOX_TOP_LEFT,
    FOREGROUND,
    PADDING,
    bounding_box,
    centre_click,
    correction_click,
    draw_pixel,
    inside_click,
    outside_click,
    training_click,
    training_prompt,
)


def mask_with(y0, y1, x0, x1, side=256):
    mask = np.zeros((side, side), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def test_the_centre_of_a_square_is_its_middle_pixel():
    assert centre_click(mask_with(2, 7, 10, 15, side=20)) == (12.0, 4.0)


def test_the_centre_keeps_away_from_the_image_edge():
    assert centre_click(mask_with(0, 5, 0, 5, side=20)) == (2.0, 2.0)


def test_a_box_names_the_outermost_pixels():
    assert bounding_box(mask_with(2, 7, 10, 15, side=20)) == (10.0, 2.0, 14.0, 6.0)


def test_draw_pixel_follows_the_weight():
    weight = np.zeros((3, 4), np.float32)
    weight[2, 1] = 5
    assert draw_pixel(np.random.default_rng(0), weight) == (1.0, 2.0)


def test_inside_clicks_keep_the_margin_and_reach_every_part():
    mask = mask_with(20, 40, 50, 90, side=128)
    rng = np.random.default_rng(0)
    clicks = np.array([inside_click(rng, mask, margin_px=2) for _ in range(400)])
    assert clicks.min(0).tolist() == [52.0, 22.0]
    assert clicks.max(0).tolist() == [87.0, 37.0]


def test_a_thin_mask_is_clicked_all_the_same():
    mask = mask_with(5, 6, 3, 9, side=16)
    x, y = inside_click(np.random.default_rng(0), mask)
    assert mask[int(y), int(x)]


@pytest.mark.parametrize("seed", range(20))
def test_training_clicks_are_inside_and_outside_clicks_outside(seed):
    mask, rng = mask_with(100, 130, 20, 60), np.random.default_rng(seed)
    x, y = training_click(rng, mask)
    assert mask[round(y), round(x)]
    x, y = outside_click(rng, mask)
    assert not mask[int(y), int(x)]


def test_corrections_go_to_the_larger_mistake():
    truth = mask_with(10, 30, 10, 30, side=64)
    too_small, too_large = mask_with(10, 30, 10, 15, side=64), mask_with(10, 50, 10, 30, side=64)
    x, y, label = correction_click(too_small, truth)
    assert (label, truth[int(y), int(x)], too_small[int(y), int(x)]) == (FOREGROUND, True, False)
    x, y, label = correction_click(too_large, truth)
    assert (label, truth[int(y), int(x)], too_large[int(y), int(x)]) == (BACKGROUND, False, True)


def test_a_perfect_mask_is_confirmed():
    truth = mask_with(10, 31, 10, 31, side=64)
    assert correction_click(truth, truth) == (20.0, 20.0, FOREGROUND)


@pytest.mark.parametrize(
    ("kind", "length", "first_labels"),
    [
        ("click", 1, {(FOREGROUND,)}),
        ("box", 2, {(BOX_TOP_LEFT, BOX_BOTTOM_RIGHT)}),
        ("mixed", 3, {(FOREGROUND,), (BOX_TOP_LEFT, BOX_BOTTOM_RIGHT)}),
    ],
)
def test_training_prompts_have_fixed_lengths_with_padding_last(kind, length, first_labels):
    mask, rng = mask_with(100, 130, 20, 60), np.random.default_rng(0)
    seen = set()
    for _ in range(40):
        points, labels = training_prompt(rng, kind, mask)
        assert len(points) == len(labels) == length
        seen.add(tuple(labels))
        real = [label for label in labels if label != PADDING]
        assert labels == real + [PADDING] * (length - len(real))
        assert any(tuple(labels[: len(first)]) == first for first in first_labels)
    assert len(seen) > (3 if kind == "mixed" else 0)


def test_an_unknown_kind_of_prompt_is_refused():
    with pytest.raises(ValueError, match="expected click, box or mixed, got 'scribble'"):
        training_prompt(np.random.default_rng(0), "scribble", mask_with(1, 5, 1, 5))
