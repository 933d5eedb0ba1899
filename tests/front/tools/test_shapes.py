"""Masks in the forms that tools draw."""

import numpy as np
from front.tools.shapes import cropped_mask


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
