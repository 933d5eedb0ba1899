"""A mask's exact polygons: their corners are those of pixels, and holes are kept.

A pixel x, y covers x to x + 1 and y to y + 1. Parts that touch at a corner alone are polygons of their own,
and no ring meets itself, as GeoJSON and the geometry libraries behind it want them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from front.tools.masks import CroppedMask

# Directions along the edges of pixels, in turning order; foreground lies to the right of each edge.
_EAST, _SOUTH, _WEST, _NORTH = range(4)
# From an edge's start to the pixel on its right: columns, rows.
_RIGHT_HAND = {_EAST: (0, 0), _SOUTH: (-1, 0), _WEST: (-1, -1), _NORTH: (0, -1)}
Ring = list[list[int]]


@dataclass(frozen=True)
class _Ring:
    corners: Ring
    # Twice its area; less than 0 for a hole.
    double_area: int
    # Of the foreground beside it: column, row.
    pixel_xy: tuple[int, int]


def count_edges(mask: CroppedMask) -> int:
    """How many edges of pixels lie between foreground and background: what polygons cost."""
    inside = np.pad(mask.pixels, 1)
    across = np.count_nonzero(inside[1:] != inside[:-1])
    return int(across + np.count_nonzero(inside[:, 1:] != inside[:, :-1]))


def pixel_polygons(mask: CroppedMask) -> list[list[Ring]]:
    """Polygons of a mask: for each part its outer ring, then its holes; rings are closed."""
    _, labels = cv2.connectedComponents(mask.pixels, connectivity=4)
    parts: dict[int, list[Ring]] = {}
    # The outer ring of a part comes before its holes: it is the largest.
    for ring in sorted(_rings(mask.pixels > 0), key=lambda ring: -ring.double_area):
        column, row = ring.pixel_xy
        corners = [[x + mask.left, y + mask.top] for x, y in [*ring.corners, ring.corners[0]]]
        parts.setdefault(int(labels[row, column]), []).append(corners)
    return list(parts.values())


def _rings(inside: npt.NDArray[np.bool_]) -> Iterator[_Ring]:
    stride = inside.shape[1] + 1
    ways = _edges(inside, stride)
    steps = {_EAST: 1, _SOUTH: stride, _WEST: -1, _NORTH: -stride}
    while ways:
        at, heading = next(iter(ways)), _EAST
        path: list[tuple[int, int]] = []
        seen: dict[int, int] = {}
        while True:
            if at in seen:
                # Back where it was: a ring, which is cut off, so that none meets itself.
                loop = path[seen[at] :]
                del path[seen[at] :]
                for vertex, _ in loop:
                    del seen[vertex]
                yield _ring(loop, stride)
                if not path:
                    break
            heading = _turned(ways, at, heading)
            seen[at] = len(path)
            path.append((at, heading))
            at += steps[heading]


def _edges(inside: npt.NDArray[np.bool_], stride: int) -> dict[int, list[int]]:
    """The directions in which edges leave each corner, corners numbered row by row."""
    padded = np.pad(inside, 1)
    beside = {
        _EAST: (padded[:-2, 1:-1], 0),
        _SOUTH: (padded[1:-1, 2:], 1),
        _WEST: (padded[2:, 1:-1], stride + 1),
        _NORTH: (padded[1:-1, :-2], stride),
    }
    ways: dict[int, list[int]] = {}
    for direction, (neighbour, offset) in beside.items():
        rows, columns = np.nonzero(inside & ~neighbour)
        for start in (rows * stride + columns + offset).tolist():
            ways.setdefault(start, []).append(direction)
    return ways


def _turned(ways: dict[int, list[int]], at: int, heading: int) -> int:
    """Takes the edge that turns right most: it stays with the same pixel where two touch at a corner."""
    choices = ways[at]
    turned = next(
        direction
        for direction in ((heading + turn) % 4 for turn in (1, 0, 3, 2))
        if direction in choices
    )
    choices.remove(turned)
    if not choices:
        del ways[at]
    return turned


def _ring(loop: list[tuple[int, int]], stride: int) -> _Ring:
    before = [direction for _, direction in loop[-1:] + loop[:-1]]
    corners = [
        [vertex % stride, vertex // stride]
        for (vertex, direction), previous in zip(loop, before, strict=True)
        if direction != previous
    ]
    following = corners[1:] + corners[:1]
    double_area = sum(x * b - a * y for (x, y), (a, b) in zip(corners, following, strict=True))
    vertex, direction = loop[0]
    right, down = _RIGHT_HAND[direction]
    return _Ring(corners, double_area, (vertex % stride + right, vertex // stride + down))
