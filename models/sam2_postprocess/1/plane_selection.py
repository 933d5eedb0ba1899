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
