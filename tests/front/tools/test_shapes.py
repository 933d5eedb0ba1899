"""Masks in the forms that tools draw."""

import cv2
import numpy as np
from front.tools.shapes import cropped_mask, simplified_outlines

from tests.masks import overlap


def test_the_part_that_has_foreground():
    mask = np.zeros((6, 8), np.uint8)
    mask[1:3, 4] = mask[2, 5:7] = 1
    part, bounds = cropped_mask(mask)
    assert bounds == (4, 1, 6, 2)
    np.testing.assert_array_equal(part, [[1, 0, 0], [1, 1, 1]])
    assert cropped_mask(np.ones((2, 3), np.uint8))[1] == (0, 0, 2, 1)


def test_an_empty_mask_is_one_pixel_of_background():
    part, bounds = cropped_mask(np.zeros((6, 8), np.uint8))
    assert part.tolist() == [[0]]
    assert bounds == (0, 0, 0, 0)


def filled(outlines, hw):
    canvas = np.zeros(hw, np.uint8)
    for outline in outlines:
        cv2.fillPoly(canvas, [outline.round().astype(np.int32)], 1)
    return canvas


def test_outlines_without_specks():
    mask = np.zeros((100, 120), np.uint8)
    cv2.circle(mask, (40, 50), 25, 1, -1)
    cv2.circle(mask, (95, 50), 15, 1, -1)
    whole = mask.copy()
    mask[5:8, 5:8] = 1
    outlines = simplified_outlines(mask, 0.001)
    assert len(outlines) == 2
    assert overlap(filled(outlines, mask.shape), whole) >= 0.98
    assert sum(map(len, simplified_outlines(mask, 0.02))) < sum(map(len, outlines))


def test_what_covers_all_is_left_out_only_where_there_is_something_else():
    mask = np.ones((50, 50), np.uint8)
    np.testing.assert_array_equal(filled(simplified_outlines(mask, 0.0), (50, 50)), mask)
    assert simplified_outlines(np.zeros((50, 50), np.uint8), 0.001) == []
    mask = np.ones((100, 100), np.uint8)
    mask[:, 96] = 0
    outlines = simplified_outlines(mask, 0.0)
    assert len(outlines) == 1
    assert outlines[0][:, 0].min() == 97
