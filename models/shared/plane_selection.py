"""Which of the decoder's four mask planes an answer consists of.

Source: `MaskDecoder.forward` and `_dynamic_multimask_via_stability` of the SAM 2 repository, with SAM
2.1's settings.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

STABILITY_DELTA = 0.05
STABILITY_THRESHOLD = 0.98


class InvalidPlanesError(ValueError):
    """The decoder's planes cannot be used; the message names the tensor, what was expected and what came."""


def check_planes(
    plane_logits: FloatArray,
    plane_ious: FloatArray,
    original_hw: tuple[int, int],
    max_image_pixels: int,
) -> None:
    """Holds what came with the planes against each other: a client may call the model directly.

    Raises:
        InvalidPlanesError: no objects, unequal B, numbers that are not finite, or an image that cannot be.
    """
    objects = len(plane_logits)
    if objects < 1:
        raise InvalidPlanesError("plane_logits: expected at least 1 object (B), got 0")
    if len(plane_ious) != objects:
        raise InvalidPlanesError(
            f"plane_ious: expected {objects} objects (B) as plane_logits has, got {len(plane_ious)}"
        )
    for name, values in (("plane_logits", plane_logits), ("plane_ious", plane_ious)):
        if not np.isfinite(values).all():
            raise InvalidPlanesError(f"{name}: expected finite numbers, got others")
    height, width = original_hw
    if height < 1 or width < 1 or height * width > max_image_pixels:
        raise InvalidPlanesError(
            f"original_hw: expected a height and a width of at least 1 and at most {max_image_pixels}"
            f" pixels together (max_image_pixels), got {height} x {width}"
        )


def select_planes(
    plane_logits: FloatArray, plane_ious: FloatArray, multimask_output: bool
) -> tuple[FloatArray, FloatArray]:
    """Chooses M of the 4 planes: planes 1 to 3 (M = 3), or the one that SAM 2.1 would give (M = 1).

    Plane 0 is the single mask, unless it is unstable: then the one of planes 1 to 3 with the highest
    predicted IoU stands in.

    Args:
        plane_logits: [B, 4, s, s].
        plane_ious: [B, 4].
        multimask_output: whether three candidates are wanted.

    Returns:
        Logits [B, M, s, s] and IoU predictions [B, M].
    """
    if multimask_output:
        return plane_logits[:, 1:], plane_ious[:, 1:]
    stable = stability_scores(plane_logits[:, 0]) >= STABILITY_THRESHOLD
    chosen = np.where(stable, 0, 1 + plane_ious[:, 1:].argmax(axis=1))
    rows = np.arange(len(chosen))
    return plane_logits[rows, chosen][:, None], plane_ious[rows, chosen][:, None]


def stability_scores(logits: FloatArray) -> FloatArray:
    """IoU between a mask cut a little above and a little below its threshold; [B, s, s] to [B]."""
    above = (logits > STABILITY_DELTA).sum(axis=(1, 2)).astype(np.float32)
    below = (logits > -STABILITY_DELTA).sum(axis=(1, 2)).astype(np.float32)
    return np.where(below > 0, above / np.maximum(below, 1), np.float32(1))
