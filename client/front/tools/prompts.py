"""What a tool's user has marked, as one object: points and a box in pixels of the upright image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from front.refusals import invalid

_PADDING = -1


@dataclass(frozen=True)
class ObjectPrompt:
    """Points with labels (1 foreground, 0 background), a box, or both."""

    points_xy: tuple[tuple[float, float], ...] = ()
    labels: tuple[int, ...] = ()
    box_xyxy: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class PromptArrays:
    """The server's prompt tensors for several objects."""

    point_coords: npt.NDArray[np.float32] | None
    point_labels: npt.NDArray[np.int32] | None
    box: npt.NDArray[np.float32] | None


def ordered_box(x0: float, y0: float, x1: float, y1: float) -> tuple[float, float, float, float]:
    """Corners in either order ► x0, y0, x1, y1."""
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


def prompt_arrays(objects: Sequence[ObjectPrompt]) -> PromptArrays:
    """Arrays for objects of unequal numbers of points; those without any point are padded.

    Raises:
        Refusal: where one object has a box and another has none, or an object has nothing.
    """
    if not objects:
        raise invalid("prompts: expected at least one point or box, got none")
    boxes = [each.box_xyxy for each in objects if each.box_xyxy is not None]
    if len(boxes) not in (0, len(objects)):
        raise invalid(
            "prompts: expected a box for each object or for none, got some with and some without"
        )
    most = max(len(each.points_xy) for each in objects)
    if not boxes and not all(each.points_xy for each in objects):
        raise invalid(
            "prompts: expected points or a box for each object, got an object with neither"
        )
    coords = labels = None
    if most:
        coords = np.zeros((len(objects), most, 2), np.float32)
        labels = np.full((len(objects), most), _PADDING, np.int32)
        for row, each in enumerate(objects):
            count = len(each.points_xy)
            if count:
                coords[row, :count] = each.points_xy
                labels[row, :count] = each.labels
    return PromptArrays(coords, labels, np.array(boxes, np.float32) if boxes else None)
