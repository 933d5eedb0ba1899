"""A client's clicks, box or mask, in pixels of the upright frame, as what the tracker takes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from memory_bank import PointPrompt
from PIL import Image
from video_commands import Command
from video_errors import InvalidStepError

CLICK_LABELS = (0, 1)
BOX_CORNER_LABELS = (2, 3)
# What a resized mask must reach to be foreground.
FOREGROUND_SHARE = 0.5


def check_prompt(command: Command, max_points: int) -> None:
    """Checks all that can be checked before the frame is known.

    Raises:
        InvalidStepError: no prompt, several kinds of it, or broken numbers; the tensor is named.
    """
    coords, labels, box = command.point_coords, command.point_labels, command.box
    if (coords is None) != (labels is None):
        given, missing = (
            ("point_labels", "point_coords") if coords is None else ("point_coords", "point_labels")
        )
        raise InvalidStepError(f"{missing}: expected together with {given}, got only {given}")
    if command.mask is not None:
        if coords is not None or box is not None or not command.clear_old_points:
            other = "box" if box is not None else "point_coords"
            other = other if coords is not None or box is not None else "clear_old_points false"
            raise InvalidStepError(f"mask: expected alone, got {other} with it")
        return
    if coords is None and box is None:
        raise InvalidStepError(
            "prompt: expected point_coords with point_labels, box or mask, got none of them"
        )
    if box is not None:
        _check_box(box, command.clear_old_points)
    if coords is not None and labels is not None:
        _check_points(coords, labels, max_points)


def to_point_prompt(
    command: Command, original_hw: tuple[int, int], earlier: PointPrompt | None, max_points: int
) -> PointPrompt:
    """A checked command's box corners and clicks, behind the earlier ones that it adds to."""
    coords = [np.zeros((0, 2), np.float32)]
    labels = [np.zeros(0, np.int32)]
    if command.box is not None:
        coords.append(command.box.reshape(2, 2))
        labels.append(np.array(BOX_CORNER_LABELS, np.int32))
    if command.point_coords is not None and command.point_labels is not None:
        coords.append(command.point_coords)
        labels.append(command.point_labels)
    height, width = original_hw
    unit_coords = np.concatenate(coords) / np.array([width, height], np.float32)
    prompt = PointPrompt(unit_coords, np.concatenate(labels))
    if earlier is not None and not command.clear_old_points:
        prompt = earlier.followed_by(prompt)
    if len(prompt.labels) > max_points:
        raise InvalidStepError(
            f"point_coords: expected at most {max_points} points of an object on a frame, box corners and"
            f" earlier ones included (max_points_per_object), got {len(prompt.labels)}"
        )
    return prompt


def to_square_mask(
    mask: npt.NDArray[np.uint8], original_hw: tuple[int, int], side: int
) -> npt.NDArray[np.uint8]:
    """A client's mask [H, W] as 0 and 1 in the model's own square, through an antialiased bilinear filter.

    Raises:
        InvalidStepError: the mask is not of the frame's size.
    """
    if mask.shape != original_hw:
        raise InvalidStepError(
            f"mask: expected the frame's size {list(original_hw)} (height, width), got {list(mask.shape)}"
        )
    foreground: npt.NDArray[np.bool_] = mask != 0
    if mask.shape == (side, side):
        return foreground.astype(np.uint8)
    picture = Image.fromarray(foreground.astype(np.float32))
    resized = np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR))
    square: npt.NDArray[np.uint8] = (resized >= FOREGROUND_SHARE).astype(np.uint8)
    return square


def _check_points(
    coords: npt.NDArray[np.float32], labels: npt.NDArray[np.int32], max_points: int
) -> None:
    if len(coords) != len(labels):
        raise InvalidStepError(
            f"point_labels: expected {len(coords)} as point_coords has, got {len(labels)}"
        )
    if not 1 <= len(coords) <= max_points:
        raise InvalidStepError(
            f"point_coords: expected 1 to {max_points} points (max_points_per_object), got {len(coords)}"
        )
    _check_finite("point_coords", coords)
    unknown = labels[~np.isin(labels, CLICK_LABELS)]
    if unknown.size:
        raise InvalidStepError(
            f"point_labels: expected 1 (foreground) or 0 (background), got {int(unknown[0])}"
        )


def _check_box(box: npt.NDArray[np.float32], clear_old_points: bool) -> None:
    if not clear_old_points:
        raise InvalidStepError(
            "box: expected with clear_old_points true, because a box comes before all clicks; got false"
        )
    _check_finite("box", box)
    x0, y0, x1, y1 = box.tolist()
    if x0 > x1 or y0 > y1:
        raise InvalidStepError(
            f"box: expected x0, y0, x1, y1 with x0 <= x1 and y0 <= y1, got {[x0, y0, x1, y1]}"
        )


def _check_finite(name: str, values: npt.NDArray[np.float32]) -> None:
    if not np.isfinite(values).all():
        broken = float(values[~np.isfinite(values)][0])
        raise InvalidStepError(f"{name}: expected finite numbers, got {broken}")
