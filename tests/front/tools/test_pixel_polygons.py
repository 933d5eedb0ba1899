"""Exact polygons: drawn by an own filler they are the mask again, and shapes of few pixels are known."""

from itertools import pairwise

import numpy as np
import pytest
from front.tools.masks import CroppedMask
from front.tools.pixel_polygons import count_edges, pixel_polygons
from hypothesis import given
from hypothesis import strategies as st
from skimage.measure import label


def filled(polygons, hw):
    """Even-odd over the centres of pixels: a pixel is inside what has an odd number of edges to its left."""
    flips = np.zeros((hw[0], hw[1] + 1), int)
    for polygon in polygons:
        for ring in polygon:
            for (x0, y0), (x1, y1) in pairwise(ring):
                if x0 == x1:
                    flips[min(y0, y1) : max(y0, y1), x0] ^= 1
    return np.cumsum(flips, axis=1)[:, :-1] % 2


def double_area(ring):
    return sum(x * b - a * y for (x, y), (a, b) in pairwise(ring))


def check(mask):
    polygons = pixel_polygons(CroppedMask.of(mask))
    np.testing.assert_array_equal(filled(polygons, mask.shape), mask)
    assert len(polygons) == label(mask, connectivity=1).max()
    area = 0
    for outer, *holes in polygons:
        assert double_area(outer) > 0
        assert all(double_area(hole) < 0 for hole in holes)
        area += double_area(outer) + sum(map(double_area, holes))
        for ring in (outer, *holes):
            assert ring[0] == ring[-1]
            # No ring meets itself, and no corner is straight.
            assert len({tuple(corner) for corner in ring}) == len(ring) - 1
            for (ax, ay), (bx, by), (cx, cy) in zip(ring, ring[1:], ring[2:], strict=False):
                assert (bx - ax) * (cy - by) != (by - ay) * (cx - bx)
    assert area == 2 * mask.sum()


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1), st.floats(0.1, 0.95))
def test_masks(height, width, seed, share):
    check((np.random.default_rng(seed).random((height, width)) < share).astype(np.uint8))


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_larger_masks(share):
    check((np.random.default_rng(3).random((60, 80)) < share).astype(np.uint8))


def test_known_shapes():
    assert pixel_polygons(CroppedMask.of(np.zeros((3, 3), np.uint8))) == []
    one = np.zeros((3, 4), np.uint8)
    one[1, 2] = 1
    assert pixel_polygons(CroppedMask.of(one)) == [[[[2, 1], [3, 1], [3, 2], [2, 2], [2, 1]]]]
    assert count_edges(CroppedMask.of(one)) == 4
    ring = np.ones((3, 3), np.uint8)
    ring[1, 1] = 0
    ((outer, hole),) = pixel_polygons(CroppedMask.of(ring))
    assert {tuple(corner) for corner in outer} == {(0, 0), (3, 0), (3, 3), (0, 3)}
    assert {tuple(corner) for corner in hole} == {(1, 1), (2, 1), (2, 2), (1, 2)}
    assert count_edges(CroppedMask.of(ring)) == 16
    diagonal = np.eye(2, dtype=np.uint8)
    assert len(pixel_polygons(CroppedMask.of(diagonal))) == 2
