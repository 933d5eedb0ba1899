import numpy as np
import pytest
from hole_filling import HOLE_LOGIT, fill_holes

# 8-connected: the two single pixels touch at a corner and are one hole of 2.
MAP = """
++++++++
+-++++--
++-+++--
++++++--
+---+++-
+---++++
+---++++
++++++++
"""


def plane() -> np.ndarray:
    rows = [[5.0 if c == "+" else -3.0 for c in line] for line in MAP.split()]
    return np.array(rows, np.float32)


@pytest.mark.parametrize(("most", "filled"), [(0, 0), (1, 0), (2, 2), (7, 9), (8, 9), (9, 18)])
def test_background_of_few_pixels_becomes_foreground(most, filled):
    before = plane()
    after = fill_holes(before, most)
    assert (after == np.float32(HOLE_LOGIT)).sum() == filled
    assert np.array_equal(after[after != np.float32(HOLE_LOGIT)], before[after == before])
    assert np.array_equal(before, plane())


def test_a_map_without_foreground_or_background_stays():
    for value in (-1.0, 0.0, 1.0):
        constant = np.full((8, 8), value, np.float32)
        assert np.array_equal(fill_holes(constant, 8), constant)


def test_zero_counts_as_background():
    before = np.ones((8, 8), np.float32)
    before[3, 3] = 0
    assert fill_holes(before, 1)[3, 3] == np.float32(HOLE_LOGIT)
