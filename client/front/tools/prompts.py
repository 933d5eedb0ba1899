"""What a tool's user has marked, as one object: points and a box in pixels of the upright image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from front.refusals import invalid

_PADDING = -1
# Of one object; the server's own limit on points is tighter where it is set so.
MAX_POINTS = 1000


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
    coords = labels = box = None
    # What is too large for a float becomes infinite, and the server refuses that by the tensor's name.
    with np.errstate(over="ignore"):
        if boxes:
            box = np.array(boxes, np.float32)
        if most:
            coords = np.zeros((len(objects), most, 2), np.float32)
            labels = np.full((len(objects), most), _PADDING, np.int32)
            for row, each in enumerate(objects):
                count = len(each.points_xy)
                if count:
                    coords[row, :count] = each.points_xy
                    labels[row, :count] = each.labels
    return PromptArrays(coords, labels, box)


def marked_objects(
    where: str,
    points: Sequence[tuple[float, float, int]],
    boxes: Sequence[tuple[float, float, float, float]],
    most: int,
) -> list[ObjectPrompt]:
    """Clicks (x, y, label), all of one object, with its box if there is one; or a box for each object.

    Raises:
        Refusal: nothing marked, more than so many, or clicks of which nobody knows the box.
    """
    if len(points) > MAX_POINTS or len(boxes) > most:
        raise invalid(
            f"{where}: expected at most {MAX_POINTS} points and {most} boxes (max_objects), got"
            f" {len(points)} and {len(boxes)}"
        )
    if not points and not boxes:
        raise invalid(f"{where}: expected at least one point or box, got none")
    if points and len(boxes) > 1:
        raise invalid(f"{where}: expected points with at most one box, got {len(boxes)} boxes")
    if len(boxes) > 1:
        return [ObjectPrompt(box_xyxy=box) for box in boxes]
    points_xy = tuple((x, y) for x, y, _ in points)
    return [
        ObjectPrompt(points_xy, tuple(label for *_, label in points), boxes[0] if boxes else None)
    ]
