"""Prompts for one object on one frame, as `SAM2VideoPredictor` takes them ► the server's tensors, checked."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from triton_sam2._errors import InvalidInputError
from triton_sam2._inputs.prompts import Prompts, prompt_tensors

_INT32_MAX = 2**31 - 1
_INT64 = np.iinfo(np.int64)


def checked_frame(frame_idx: int, name: str = "frame_idx") -> int:
    """A frame's number."""
    if isinstance(frame_idx, bool) or not isinstance(frame_idx, int | np.integer):
        raise InvalidInputError(f"{name}: expected a whole number, got {frame_idx!r}")
    if not 0 <= frame_idx <= _INT32_MAX:
        raise InvalidInputError(f"{name}: expected 0 to {_INT32_MAX}, got {frame_idx}")
    return int(frame_idx)


def object_tensor(obj_id: int) -> NDArray[np.int64]:
    """An object's number, as the server takes it."""
    if isinstance(obj_id, bool) or not isinstance(obj_id, int | np.integer):
        raise InvalidInputError(f"obj_id: expected a whole number, got {obj_id!r}")
    if not _INT64.min <= obj_id <= _INT64.max:
        raise InvalidInputError(f"obj_id: expected a number of 64 bits, got {obj_id}")
    return np.array([obj_id], np.int64)


def point_tensors(
    obj_id: int,
    points: ArrayLike | None,
    labels: ArrayLike | None,
    box: ArrayLike | None,
    clear_old_points: bool,
) -> Prompts:
    """Clicks and a box of one object: points [N, 2] or [1, N, 2], labels [N] or [1, N], box [4] or [1, 4]."""
    if points is None and labels is None and box is None:
        raise InvalidInputError("no prompt: give points and labels, or box, or use add_new_mask")
    if box is not None and not clear_old_points:
        raise InvalidInputError(
            "box: expected with clear_old_points=True, for a box comes before all clicks, got False"
        )
    batch = prompt_tensors(_some(points), _some(labels), box)
    for name, tensor in batch.items():
        if len(tensor) != 1:
            raise InvalidInputError(f"{name}: expected prompts of one object, got {len(tensor)}")
    prompts: Prompts = {name: tensor[0] for name, tensor in batch.items()}
    if (prompts.get("point_labels", np.zeros(0)) < 0).any():
        raise InvalidInputError("labels: expected 1 (foreground) or 0 (background), got -1")
    return {
        **prompts,
        "object_id": object_tensor(obj_id),
        "clear_old_points": np.array([bool(clear_old_points)]),
    }


def mask_tensors(obj_id: int, mask: ArrayLike) -> Prompts:
    """A mask of one object, [H, W] of the frame: what is true or not 0 is the object."""
    pixels: NDArray[Any] = np.asarray(mask)
    if pixels.ndim != 2 or pixels.size == 0 or pixels.dtype.kind not in "biuf":
        raise InvalidInputError(
            f"mask: expected true and false, or numbers, of shape [H, W], got {pixels.dtype}"
            f" {list(pixels.shape)}"
        )
    return {"object_id": object_tensor(obj_id), "mask": (pixels != 0).astype(np.uint8)}


def _some(values: ArrayLike | None) -> ArrayLike | None:
    """Torch's tensors and the like come as arrays; lists as they are."""
    return values if values is None or isinstance(values, list | tuple) else np.asarray(values)
